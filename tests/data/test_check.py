"""What a check finds in a corpus, each thing made to be found; and what it does not find where there is nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corrupt_audio import chirp, truncated

from xmodal.audio import BytesAudio
from xmodal.cli import main
from xmodal.data import Caption, Corpus, SetAside, Track, read_corpus
from xmodal.data import measure as measure_module
from xmodal.data.check import check
from xmodal.data.measure import error_rate, measure, near_copies
from xmodal.data.pack import pack

RATE = 16_000


def music(seed: int, seconds: float = 6.0, rate: int = RATE) -> np.ndarray:
    """Notes at random, a new chord every quarter of a second: different from seed to seed, alike in style."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(0.25 * rate)) / rate
    parts = []
    for _ in range(round(seconds / 0.25)):
        pitches = 110 * 2 ** (rng.integers(0, 40, 3) / 12)
        decay = np.exp(-rng.uniform(2, 8) * time)
        parts.append(sum(np.sin(2 * np.pi * pitch * time + rng.uniform(0, 6)) for pitch in pitches) * decay / 6)
    return (np.concatenate(parts) + 0.003 * rng.standard_normal(len(parts) * len(time))).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE, **options) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def track(path: Path, name: str | None = None, **fields) -> Track:
    fields = {"captions": (Caption(f"about {name or path.stem}"),), "licence": "CC0", **fields}
    return Track(name or path.stem, path, **fields)


def found(corpus: list[Track] | Corpus, **options) -> dict[str, tuple[str, int, list[str]]]:
    report = check(corpus if isinstance(corpus, Corpus) else Corpus(corpus), **options)
    return {one.what.split(":")[0]: (one.level, one.count, one.examples) for one in report.findings}


@pytest.fixture
def two(tmp_path):
    return [track(write(tmp_path / f"{name}.flac", music(seed))) for seed, name in enumerate("ab")]


def test_a_corpus_in_which_nothing_is_wrong_is_counted(two):
    report = check(Corpus([*two, track(two[0].path, "part", start_seconds=1.0, end_seconds=2.5)]), workers=3)
    assert (report.tracks, report.findings, report.failures, report.wrong) == (3, [], [], False)
    assert report.seconds == {"total": 13.5, "shortest": 1.5, "median": 6.0, "95 %": 6.0, "longest": 6.0}
    assert (report.sample_rates, report.channels) == ({"16000": 3}, {"1": 3})
    assert (report.formats, report.licences) == ({"flac/pcm_16": 3}, {"CC0": 3})
    assert report.texts["captions"] == 3
    json.dumps(report.to_dict())


def test_files_that_cannot_be_decoded_to_their_end_are_wrong_and_the_others_are_checked(two, tmp_path):
    (tmp_path / "no.wav").write_bytes(b"no audio")
    short = truncated(write(tmp_path / "c.wav", music(3)), 0.5)
    corpus = Corpus([two[0], track(tmp_path / "no.wav"), two[1], track(short)], [SetAside("gone", "gone.wav", "lost")])
    report = check(corpus)
    assert report.tracks == 2
    assert [one.id for one in report.failures] == ["gone", "no", "short-c"]
    assert report.findings[0].level == "wrong"
    assert report.findings[0].count == 3
    assert report.wrong


def test_a_file_that_a_decoder_chokes_on_does_not_end_the_check(two, monkeypatch):
    from xmodal.data import check as check_module

    def choke(one):
        if one.id == "a":
            raise MemoryError("much")
        return measure(one)

    monkeypatch.setattr(check_module, "measure", choke)
    report = check(Corpus(two))
    assert [one.reason for one in report.failures] == ["cannot be measured (MemoryError('much'))"]
    assert report.tracks == 1


@pytest.mark.parametrize(
    ("samples", "what", "level"),
    [
        (np.zeros(RATE), "silent", "wrong"),
        (np.full(RATE, 0.0009), "silent", "wrong"),
        (
            np.r_[np.zeros(19 * RATE), np.sin(np.arange(RATE))],
            "silent for more than nine tenths of their length",
            "note",
        ),
        (np.clip(3 * np.sin(np.arange(2 * RATE) / 20), -1, 1), "clipped", "note"),
    ],
)
def test_silence_and_clipping_are_found(tmp_path, two, samples, what, level):
    bad = track(write(tmp_path / "bad.wav", samples.astype(np.float32), subtype="FLOAT"))
    findings = found([*two, bad])
    assert findings[what][:2] == (level, 1)
    assert findings[what][2] == ["bad"]


def test_loud_is_not_clipped_and_quiet_is_not_silent(tmp_path):
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    tracks = [
        track(write(tmp_path / f"{n}.wav", (level * tone).astype(np.float32))) for n, level in enumerate((1.0, 0.002))
    ]
    assert found(tracks).keys() == set()


@pytest.mark.parametrize("size", [1, 7, 1000, 65_536])
def test_levels_do_not_depend_on_how_the_signal_comes_in_blocks(size):
    rng = np.random.default_rng(0)
    samples = np.clip(2.5 * np.sin(np.arange(4000) / 30) * (rng.random(4000) > 0.001), -1, 1).astype(np.float32)
    whole, parts = measure_module._Levels(), measure_module._Levels()
    for levels in (whole, parts):
        levels.begin(RATE)
    whole.add(samples)
    for first in range(0, len(samples), size):
        parts.add(samples[first : first + size])
    runs = "".join("x" if one else " " for one in np.abs(samples) >= 0.999).split()
    assert whole.clipped_runs == sum(len(run) >= 3 for run in runs) > 10
    for name in ("samples", "peak", "clipped_runs"):
        assert getattr(parts, name) == getattr(whole, name)
    assert parts.silent_share() == whole.silent_share()
    assert parts.digest.hexdigest() == whole.digest.hexdigest()


# Copies


def copies(tmp_path: Path) -> dict[str, Path]:
    samples = music(7)
    original = write(tmp_path / "original.wav", samples)
    same = tmp_path / "same.wav"
    same.write_bytes(original.read_bytes())
    return {
        "original": original,
        "same": same,
        "flac": write(tmp_path / "flac.flac", soundfile.read(original, dtype="int16")[0]),
        "mp3": write(tmp_path / "mp3.mp3", 0.4 * samples),
        "ogg": write(tmp_path / "ogg.ogg", samples, format="OGG"),
        "other": write(tmp_path / "other.wav", music(8)),
    }


@pytest.mark.parametrize(
    ("copy", "what"),
    [
        ("same", "the same bytes twice"),
        ("flac", "the same decoded audio in other bytes"),
        ("mp3", "nearly the same audio"),
        ("ogg", "nearly the same audio"),
    ],
)
def test_copies_are_found_by_what_they_hold(tmp_path, copy, what):
    paths = copies(tmp_path)
    findings = found([track(paths["original"]), track(paths[copy]), track(paths["other"])])
    assert findings == {what: ("note", 1, [f"original = {copy}"])}


@pytest.mark.parametrize(
    ("copy", "what"),
    [("same", "the same file, or parts"), ("flac", "the same audio in other"), ("mp3", "nearly the same")],
)
def test_a_recording_in_two_splits_is_wrong(tmp_path, copy, what):
    paths = copies(tmp_path)
    tracks = [
        track(paths["original"], split="train"),
        track(paths[copy], split="Test"),
        track(paths["other"], split="dev"),
    ]
    [leak] = [one for one in check(Corpus(tracks)).findings if one.level == "wrong"]
    assert leak.what.startswith(f"one recording is in several splits: {what}")
    assert leak.examples == [f"original (train) = {copy} (test)"]
    for one in tracks:
        object.__setattr__(one, "split", "train")
    assert not check(Corpus(tracks)).wrong


def test_parts_of_one_file_in_two_splits_are_wrong_and_no_copies(two):
    parts = [
        track(two[0].path, "start", end_seconds=2.0, split="train"),
        track(two[0].path, "end", start_seconds=2.0, split="test"),
        track(two[1].path, split="test"),
    ]
    findings = found(parts)
    assert findings.keys() == {"one recording is in several splits"}


def test_one_file_listed_twice_is_a_copy(two):
    assert found([two[0], track(two[0].path, "again")])["the same bytes twice"][1] == 1


def test_groups_artists_and_captions_on_two_sides_are_found(two):
    sides = {"split": "train", "group": "g", "artist": "The  Band", "captions": (Caption("A calm tune"),)}
    other = {"split": "test", "group": "g", "artist": "the band", "captions": (Caption("a CALM tune"), Caption("x"))}
    findings = found([track(two[0].path, **sides), track(two[1].path, **other)])
    assert findings == {
        "a group is in several splits": ("wrong", 1, ["a (train) = b (test)"]),
        "an artist is in several splits": ("note", 1, ["The  Band (test, train)"]),
        "a caption is in several splits": ("note", 1, ["“a calm tune” (test, train)"]),
    }
    assert found([track(two[0].path, **sides), track(two[1].path, **{**other, "split": "train"})]) == {}


def test_missing_texts_licences_splits_and_low_rates_are_found(two, tmp_path):
    low = track(write(tmp_path / "low.wav", music(9, rate=4000), 4000), captions=(), licence=None, split="train")
    findings = found([*two, low])
    assert findings["without a caption, a tag or lyrics"] == ("note", 1, ["low"])
    assert findings["without a licence"] == ("note", 1, ["low"])
    assert findings["without a split, while others have one"] == ("wrong", 2, ["a", "b"])
    assert findings["recorded at less than half of the highest rate, 16000 Hz"] == ("note", 1, ["low"])


# Fingerprints


def print_of(samples: np.ndarray, rate: int = RATE, **options):
    content = io.BytesIO()
    soundfile.write(content, samples, rate, **{"format": "WAV", **options})
    one = measure(Track("x", Path("x"), data=BytesAudio(content.getvalue())))
    return one.fingerprint, one.heard


def test_a_fingerprint_survives_level_encoding_rate_and_a_small_shift_and_tells_others_apart():
    import soxr

    samples = music(1, seconds=8.0)
    base = print_of(samples)
    assert len(base[0]) > 200
    same = {
        "quieter": print_of(0.1 * samples),
        "mp3": print_of(samples, format="MP3"),
        "vorbis": print_of(samples, format="OGG"),
        "upsampled": print_of(soxr.resample(samples, RATE, 44_100), 44_100),
        "shifted": print_of(np.r_[np.zeros(800, np.float32), samples]),
        "stereo": print_of(np.stack([samples, 0.5 * samples], axis=1)),
    }
    for name, one in same.items():
        assert error_rate(base, one) < measure_module.NEAR_ERROR_RATE, name
    others = [print_of(music(seed, seconds=8.0)) for seed in range(2, 12)]
    assert min(error_rate(base, other) for other in others) > 0.35
    everything = [base, *same.values(), *others]
    assert {(first, second) for first, second, _ in near_copies(everything)} == {
        (first, second) for second in range(1 + len(same)) for first in range(second)
    }


@pytest.mark.parametrize("samples", [np.zeros(8 * RATE), music(1, seconds=2.0), np.zeros(3)])
def test_silence_and_short_audio_are_no_near_copies(samples):
    one = print_of(samples.astype(np.float32))
    assert error_rate(one, one) is None
    assert near_copies([one, one]) == []


def test_near_copies_of_nothing_are_none():
    assert near_copies([]) == []


def test_transcoded_real_recordings_are_found_and_no_others(shared_audio):
    tracks = read_corpus(shared_audio / "ccmusic.jsonl").tracks[:5]
    originals, copies_of = [], []
    for one in tracks:
        samples, rate = soundfile.read(one.path, dtype="float32", frames=400_000, always_2d=True)
        originals.append(print_of(samples, rate))
        copies_of.append(print_of(0.5 * samples.mean(axis=1), rate, format="MP3", compression_level=0.9))
    long_enough = {row for row in range(5) if error_rate(originals[row], originals[row]) is not None}
    pairs = {(first, second) for first, second, _ in near_copies([*originals, *copies_of])}
    assert pairs <= {(row, 5 + row) for row in range(5)}, "no two different recordings"
    assert len(pairs) == len(long_enough)


# In use


def test_a_second_check_takes_what_was_measured(two, tmp_path, monkeypatch):
    from xmodal.data import check as check_module

    kept = tmp_path / "kept.jsonl"
    first = check(Corpus(two), measurements=kept)
    with kept.open("a") as file:
        file.write('{"key": "cut sho')
    measured = []
    monkeypatch.setattr(check_module, "measure", lambda one: measured.append(one.id) or measure(one))
    assert check(Corpus(two), measurements=kept) == first
    assert measured == []
    write(two[1].path, music(5))
    third = check(Corpus(two), measurements=kept)
    assert measured == ["b"]
    assert third.tracks == 2


def test_a_check_that_was_stopped_goes_on(two, tmp_path):
    kept = tmp_path / "kept.jsonl"

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(Corpus(two), measurements=kept, progress=stop)
    assert len(kept.read_text().splitlines()) == 1


def test_the_command_says_what_is_wrong_by_its_exit_code(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    write(tmp_path / "a.flac", music(1))
    write(tmp_path / "b.flac", chirp(3.0, RATE)[:, 0])
    rows = [
        {"path": "a.flac", "caption": "one", "split": "train"},
        {"path": "b.flac", "caption": "two", "split": "test"},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["data", "check", str(manifest)]) == 0
    said = capsys.readouterr().out
    assert "train: 1, test: 1" in said
    assert "without a licence" in said
    assert main(["data", "check", str(manifest), "--strict"]) == 1
    manifest.write_text(manifest.read_text() + json.dumps({"path": "c.flac", "caption": "x", "split": "test"}))
    capsys.readouterr()
    assert main(["data", "check", str(manifest), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["wrong"]
    assert report["failures"][0]["path"] == "c.flac"


def test_altered_shards_are_found_by_the_command(two, tmp_path, capsys):
    pack(two, tmp_path / "out", samples_per_shard=1)
    assert main(["data", "check", str(tmp_path / "out")]) == 0
    shard = tmp_path / "out" / "shard-000000.tar"
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1  # behind the samples, where no decoder looks
    shard.write_bytes(content)
    capsys.readouterr()
    assert main(["data", "check", str(tmp_path / "out"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["altered_shards"][0]["id"] == "shard-000000.tar"
