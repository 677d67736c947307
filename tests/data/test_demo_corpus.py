"""The demo corpus: what is composed can be heard, what is said is true, and a build survives what may befall it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from xmodal.data.demo import UNSEEN_WORDS, WORDS, build_corpus, captions_for, compose, prompts, render
from xmodal.data.demo import captions as wording
from xmodal.data.demo.clips import Recipe, serve, split_of
from xmodal.data.demo.instruments import INSTRUMENTS
from xmodal.data.demo.score import Composition, Note, Part
from xmodal.data.demo.soundfont import soundfont_path, tuned
from xmodal.data.manifests import read_tracks
from xmodal.errors import DataError
from xmodal.text import words_key

pytest.importorskip("symusic", reason="it renders the demo's music: pip install 'xmodal[demo]'")
pytest.importorskip("pretty_midi", reason="the soundfont comes with it: pip install 'xmodal[demo]'")

RATE = 16_000
SHORT = {"clips": 20, "seconds": 2.0, "seed": 5}
RECIPE = Recipe(seed=5, seconds=2.0, sample_rate=RATE)
UNLUCKY_CLIP = 3
UNLUCKY_SEED = RECIPE.composition_seed(UNLUCKY_CLIP, 0)


# Renderers that the workers import from here.


def quick(composition: Composition, sample_rate: int) -> np.ndarray:
    """Noise that depends on the composition alone: for tests of the builder, which does not listen."""
    samples = round(composition.seconds * sample_rate)
    return np.random.default_rng(composition.seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def hanging(composition: Composition, sample_rate: int) -> np.ndarray:
    if composition.seed == UNLUCKY_SEED:
        threading.Event().wait()
    return quick(composition, sample_rate)


def dying(composition: Composition, sample_rate: int) -> np.ndarray:
    if composition.seed == UNLUCKY_SEED:
        os._exit(7)
    return quick(composition, sample_rate)


def always_dying(composition: Composition, sample_rate: int) -> np.ndarray:
    os._exit(7)


def full_disk(composition: Composition, sample_rate: int) -> np.ndarray:
    raise OSError(28, "No space left on device")


# Composer and renderer


@pytest.fixture(scope="module")
def many() -> list[Composition]:
    return [compose(seed) for seed in range(1200)]


@pytest.fixture(scope="module")
def pieces(many) -> list[Composition]:
    return many[:80]


@pytest.fixture(scope="module")
def sounds(pieces) -> list[np.ndarray]:
    return [render(piece, RATE) for piece in pieces]


def test_the_same_seed_gives_the_same_piece_and_another_seed_another():
    assert compose(11) == compose(11)
    assert compose(11).parts != compose(12).parts


def test_the_same_piece_gives_the_same_samples(pieces, sounds):
    np.testing.assert_array_equal(render(pieces[4], RATE), sounds[4])


def test_nobody_plays_outside_the_range_of_the_instrument_or_the_length_of_the_piece(many):
    for piece in many:
        for part in piece.parts:
            instrument = INSTRUMENTS.get(part.instrument)
            assert part.notes, f"{part.role} of {piece.seed} plays nothing"
            for note in part.notes:
                assert 0 <= note.start_seconds < piece.seconds
                assert 0 < note.duration_seconds <= piece.seconds - note.start_seconds + 1e-3
                if not part.is_drum:
                    assert instrument.low <= note.pitch <= instrument.high, f"{part.role} of {piece.seed}"


def test_samples_are_as_long_as_the_piece_and_within_full_scale(pieces, sounds):
    for piece, samples in zip(pieces, sounds, strict=True):
        assert samples.dtype == np.float32
        assert samples.shape == (round(piece.seconds * RATE),)
        assert 0.5 < np.abs(samples).max() <= 1.0


@pytest.mark.parametrize("seconds", [1.9, 61.0])
def test_a_piece_of_unusual_length_is_refused(seconds):
    with pytest.raises(ValueError, match=f"from 2 to 60 seconds, got {seconds}"):
        compose(0, seconds=seconds)


def test_a_sample_rate_that_the_synthesiser_cannot_serve_is_refused():
    with pytest.raises(ValueError, match="from 16000 to 48000 Hz, got 8000"):
        render(compose(0), 8000)


# Sounds without a period, or with one of their own beside the note's
UNPITCHED = {"accordion", "glockenspiel", "sitar", "steel drums", "vibraphone"}


@pytest.mark.parametrize("tag", sorted(set(INSTRUMENTS) - UNPITCHED))
def test_an_instrument_is_in_tune_over_its_range(tag):
    """The signal repeats after the period of the note better than after that of any note near it."""
    instrument, rate = INSTRUMENTS[tag], 48_000
    for program, pitch in itertools.product(
        instrument.programs, range(instrument.low, min(instrument.high, 80) + 1, 7)
    ):
        part = Part("lead", tag, program, False, (Note(0.0, 1.0, pitch, 2),))
        samples = render(Composition(0, 2.0, 60.0, "C major", (part,), {}), rate).astype(np.float64)[4800:33_600]
        period = rate / (440.0 * 2 ** ((pitch - 69) / 12))
        # Twice the period: organs have a stop an octave below.
        repetition = _repetition(samples)
        best = max(range(-6, 7), key=lambda semitones: repetition(2 * period * 2 ** (semitones / 12)))
        assert best == 0, f"program {program} plays note {pitch} {-best:+d} semitones off"


def _repetition(samples: np.ndarray) -> Callable[[float], float]:
    """From a lag to the autocorrelation there: the highest within one percent, a sixth of a semitone."""
    power = np.abs(np.fft.rfft(samples, 2 * len(samples))) ** 2
    correlation = np.fft.irfft(power)[: len(samples)] / np.arange(len(samples), 0, -1)
    return lambda lag: float(correlation[round(lag * 0.99) : round(lag * 1.01) + 1].max())


def test_tuning_a_tuned_soundfont_changes_nothing():
    once = tuned(soundfont_path().read_bytes())
    assert tuned(once) == once
    assert int.from_bytes(once[4:8], "little") == len(once) - 8


def test_a_missing_soundfont_is_answered_with_the_extra_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'xmodal\[demo\]'"):
        soundfont_path()


# Tags can be heard


def spectrum(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz and magnitudes [frames, frequencies] of windows of 32 ms, 8 ms apart."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 512)[::128] * np.hanning(512)
    return np.fft.rfftfreq(512, 1 / RATE), np.abs(np.fft.rfft(frames))


def high_flux(samples: np.ndarray) -> float:
    """How suddenly power comes up above 4 kHz, against the power that there is."""
    frequencies, magnitudes = spectrum(samples)
    band = magnitudes[:, frequencies > 4000].sum(axis=1)
    return float(np.maximum(np.diff(band), 0).mean() / magnitudes.sum(axis=1).mean())


def centroid(samples: np.ndarray) -> float:
    frequencies, magnitudes = spectrum(samples)
    return float((magnitudes @ frequencies).sum() / magnitudes.sum())


def onset_rate(samples: np.ndarray) -> float:
    """Share of frames in which the spectrum rises clearly."""
    _, magnitudes = spectrum(samples)
    level = np.log(magnitudes + 0.01 * magnitudes.max())
    rise = np.maximum(np.diff(level, axis=0), 0).mean(axis=1)
    peaks = (rise[1:-1] > rise[:-2]) & (rise[1:-1] >= rise[2:]) & (rise[1:-1] > 0.2)
    return float(peaks.mean())


def by_tag(pieces, values, tag) -> tuple[np.ndarray, np.ndarray]:
    """Values of the pieces with a tag, and of those without it."""
    has = np.array([any(tag in names for names in piece.tags.values()) for piece in pieces])
    return np.array(values)[has], np.array(values)[~has]


def separation(high: np.ndarray, low: np.ndarray) -> float:
    """Chance that one of the first is above one of the second (area under the ROC curve)."""
    return float((high[:, None] > low[None, :]).mean())


def test_drums_are_heard_as_bursts_of_treble(pieces, sounds):
    assert separation(*by_tag(pieces, [high_flux(s) for s in sounds], "drums")) > 0.75


def test_the_drums_of_a_piece_are_what_makes_them(pieces, sounds):
    for piece, samples in list(zip(pieces, sounds, strict=True))[:25]:
        if "drums" in piece.tags["drums"]:
            still = dataclasses.replace(piece, parts=tuple(part for part in piece.parts if not part.is_drum))
            assert high_flux(samples) > 1.2 * high_flux(render(still, RATE)), f"seed {piece.seed}: {piece.tags}"


def test_a_lead_in_the_high_register_sounds_brighter_than_one_in_the_low_register(pieces, sounds):
    centroids = [centroid(samples) for samples in sounds]
    high, _ = by_tag(pieces, centroids, "high register")
    low, _ = by_tag(pieces, centroids, "low register")
    assert separation(high, low) > 0.7


def test_busy_pieces_start_more_sounds_than_sparse_ones(pieces, sounds):
    rates = [onset_rate(samples) for samples in sounds]
    busy, _ = by_tag(pieces, rates, "busy")
    sparse, _ = by_tag(pieces, rates, "sparse")
    assert separation(busy, sparse) > 0.85


def test_a_staccato_lead_leaves_gaps_and_a_legato_one_none(pieces, sounds):
    gaps = []
    for samples in sounds:
        level = np.sqrt(np.square(samples).reshape(-1, 400).mean(axis=1))
        gaps.append(level.std() / level.mean())
    staccato, _ = by_tag(pieces, gaps, "staccato")
    legato, _ = by_tag(pieces, gaps, "legato")
    assert separation(staccato, legato) > 0.9


def test_a_bass_part_is_heard_at_the_low_end(pieces, sounds):
    lows = []
    for samples in sounds:
        frequencies, magnitudes = spectrum(samples)
        lows.append(magnitudes[:, frequencies < 160].sum() / magnitudes.sum())
    bass = np.array([any(part.role == "bass" for part in piece.parts) for piece in pieces])
    assert separation(np.array(lows)[bass], np.array(lows)[~bass]) > 0.75


def test_the_third_of_the_key_is_heard_as_major_or_minor(pieces, sounds):
    thirds = []
    for piece, samples in zip(pieces, sounds, strict=True):
        tonic = {"C": 60, "F": 65, "G": 67}[piece.key.split()[0]]
        magnitudes = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
        power = {
            third: sum(_band(magnitudes, tonic + third + 12 * octave, len(samples)) for octave in (-1, 0, 1))
            for third in (3, 4)
        }
        thirds.append(np.log(power[4] / power[3]))
    major, minor = by_tag(pieces, thirds, "major key")
    assert separation(major, minor) > 0.9


def _band(magnitudes: np.ndarray, pitch: int, samples: int) -> float:
    """Magnitude within a third of a semitone of a note."""
    centre = 440.0 * 2 ** ((pitch - 69) / 12) * samples / RATE
    return float(magnitudes[round(centre * 0.981) : round(centre * 1.019)].sum())


def test_the_lead_is_heard_through_the_mix(pieces, sounds):
    for piece, mixed in list(zip(pieces, sounds, strict=True))[:20]:
        others = dataclasses.replace(piece, parts=tuple(part for part in piece.parts if part.role != "lead"))
        alike = np.corrcoef(mixed, render(others, RATE))[0, 1]
        assert alike < 0.9, f"seed {piece.seed}: without its lead the mix is nearly the same ({alike:.2f})"


def test_moods_follow_from_their_audible_causes(many):
    for piece in many:
        tags = {name for names in piece.tags.values() for name in names}
        if {"happy", "calm"} & tags:
            assert "major key" in tags
        if {"sad", "dark", "tense"} & tags:
            assert "minor key" in tags
        if "energetic" in tags:
            assert "slow" not in tags
            assert "sparse" not in tags
        if "dreamy" in tags:
            assert {"slow", "no drums", "sustained chords"} <= tags
        assert not {"happy", "calm"} <= tags
        assert not {"tense", "sad"} <= tags


def test_no_tag_is_rare(many):
    count = {tag: sum(any(tag in names for names in piece.tags.values()) for piece in many) for tag in WORDS}
    rare = {tag: times for tag, times in count.items() if times < 0.025 * len(many)}
    assert not rare


# Captions


def test_every_tag_of_a_piece_has_words_and_every_word_a_tag(many):
    tags = {name for piece in many for names in piece.tags.values() for name in names}
    assert tags == set(WORDS)


@pytest.mark.parametrize("split", wording.SPLITS)
def test_a_caption_names_only_tags_of_its_piece_and_in_the_words_of_its_split(split, many):
    for piece in many[:150]:
        tags = {name for names in piece.tags.values() for name in names}
        texts = captions_for(piece, split, piece.seed)
        assert len(texts) == len(wording.KINDS)
        for text in texts:
            assert text.tags
            assert text.tags <= tags
            for tag in text.tags:
                assert any(phrase in text.text for phrase in getattr(WORDS[tag], split)), (tag, text)


def test_the_first_caption_says_nearly_everything_and_the_last_ones_name_one_tag(many):
    for piece in many[:300]:
        tags = {name for names in piece.tags.values() for name in names}
        full, long, short, *single = captions_for(piece, "train", piece.seed)
        # Only the chords of a second accompanist go without saying.
        assert tags - full.tags <= {"sustained chords"}
        assert 2 <= len(short.tags) <= 3
        assert 4 <= len(long.tags) <= 6
        assert [len(text.tags) for text in single] == [1, 1]


def test_the_same_seed_gives_the_same_captions_and_another_one_others():
    piece = compose(3)
    assert captions_for(piece, "train", 1) == captions_for(piece, "train", 1)
    assert captions_for(piece, "train", 1) != captions_for(piece, "train", 2)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="one of train, validation, test, got 'dev'"):
        captions_for(compose(0), "dev", 0)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(wording.SPLITS, 2)))
def test_no_phrase_and_no_template_of_one_split_is_in_another(one, other):
    def phrases(split):
        return {words_key(phrase) for words in WORDS.values() for phrase in getattr(words, split)}

    def templates(split):
        clauses = {template for templates in wording.CLAUSES[split].values() for template in templates}
        shaped = {template for templates in wording.PROMPTS[split].values() for template in templates}
        # A bare slot is no wording.
        return clauses | shaped | {*wording.PLAYER_FRAMES[split], *wording.DRUM_FRAMES[split]} - {"{}"}

    assert not phrases(one) & phrases(other)
    assert not templates(one) & templates(other)


def test_a_phrase_means_one_tag():
    phrases = [words_key(phrase) for words in WORDS.values() for group in words for phrase in group]
    assert len(phrases) == len(set(phrases))


def test_unseen_words_are_in_no_caption(many):
    said = " | ".join(text.text for piece in many for text in captions_for(piece, split_of(piece.seed), piece.seed))
    words = f" {said.replace(',', ' ').replace(';', ' ').replace(':', ' ').replace('.', ' ')} "
    assert len(UNSEEN_WORDS) >= 50
    for word, tag in UNSEEN_WORDS.items():
        assert tag in WORDS
        assert f" {word} " not in words, f"{word!r} is said"


@pytest.mark.parametrize("split", wording.SPLITS)
def test_any_subset_of_what_can_be_said_makes_a_sentence(split):
    everything = [
        *(("adjectives", "sad"), ("style", "jazz"), ("mode", "minor key"), ("touch", "legato"), ("lead", "oboe")),
        *(("chords", "piano"), ("figure", "arpeggios"), ("backing", "strings"), ("bass", "upright bass")),
        ("drums", "no drums"),
    ]
    for size in range(1, len(everything) + 1):
        for slots in itertools.combinations(everything, size):
            text = wording._sentence(slots, split, random.Random(size))
            assert text.tags == {tag for _, tag in slots}
            assert "{" not in text.text
            assert "a(n)" not in text.text
            assert not any(f" a {vowel}" in f" {text.text}" for vowel in "aeio"), text.text


def test_prompts_of_a_tag_are_all_its_phrases_in_all_templates_of_its_kind():
    texts = prompts("flute", "instrument", "train")
    assert "music with flute" in texts
    assert len(texts) == len(set(texts)) == len(WORDS["flute"].train) * len(wording.PROMPTS["train"]["instrument"])
    assert prompts("sad", "mood", "test")[0] == f"an instrumental that feels {WORDS['sad'].test[0]}"


# The corpus


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    report = build_corpus(folder, **SHORT)
    assert (report.clips, report.made, dict(report.recomposed)) == (20, 20, {})
    assert report.manifest == folder / "manifest.jsonl"
    return folder


@pytest.fixture(scope="module")
def quick_corpus(tmp_path_factory) -> Path:
    """One that is not played: enough for whatever is not about sound."""
    folder = tmp_path_factory.mktemp("demo") / "quick"
    build_corpus(folder, **SHORT, renderer=quick)
    return folder


@pytest.fixture
def copy(quick_corpus, tmp_path) -> Path:
    return Path(shutil.copytree(quick_corpus, tmp_path / "copy"))


def test_a_corpus_is_read_as_tracks_whose_captions_are_true(corpus):
    tracks = read_tracks(corpus / "manifest.jsonl")
    assert [track.split for track in tracks].count("train") == 15
    assert [track.split for track in tracks].count("validation") == 2
    assert [track.split for track in tracks].count("test") == 3
    for track in tracks:
        assert track.path.stat().st_size == RECIPE.file_bytes
        assert len(track.captions) == len(track.extra["caption_kinds"])
        assert all(caption.requires and caption.requires <= track.all_tags for caption in track.captions)


def test_the_clips_are_what_was_composed_in_16_bit(corpus):
    samples, rate = soundfile.read(corpus / "audio" / "clip-00007.wav", dtype="int16")
    expected = render(compose(RECIPE.composition_seed(7, 0), seconds=2.0), RATE)
    assert rate == RATE
    np.testing.assert_array_equal(samples, np.rint(expected * 32767).astype(np.int16))


def test_splits_share_no_composition_and_no_caption(corpus):
    tracks = read_tracks(corpus / "manifest.jsonl")
    for one, other in itertools.combinations(wording.SPLITS, 2):
        sides = [[track for track in tracks if track.split == split] for split in (one, other)]
        audio, texts = (
            [{read(track) for track in side} for side in sides]
            for read in (lambda track: track.path.read_bytes(), lambda track: track.captions[0].text)
        )
        assert not audio[0] & audio[1]
        assert not texts[0] & texts[1]


def test_a_corpus_is_the_same_to_the_byte_with_any_number_of_workers(corpus, tmp_path):
    build_corpus(tmp_path / "alone", **SHORT, workers=1)
    assert contents(tmp_path / "alone") == contents(corpus)


def test_a_smaller_corpus_is_the_beginning_of_a_larger_one(copy, tmp_path):
    before = contents(copy)
    report = build_corpus(copy, **{**SHORT, "clips": 23}, renderer=quick)
    assert (report.clips, report.made) == (23, 3)
    build_corpus(tmp_path / "at once", **{**SHORT, "clips": 23}, renderer=quick)
    assert contents(copy) == contents(tmp_path / "at once")
    assert contents(copy)["manifest.jsonl"].startswith(before["manifest.jsonl"])


def test_only_what_is_missing_or_cut_short_is_made_again(copy):
    before = contents(copy)
    (copy / "audio" / "clip-00004.wav").unlink()
    with (copy / "audio" / "clip-00009.wav").open("r+b") as file:
        file.truncate(1000)
    calls = []
    report = build_corpus(copy, **SHORT, renderer=quick, progress=lambda done, total: calls.append((done, total)))
    assert report.made == 2
    assert calls == [(19, 20), (20, 20)]
    assert contents(copy) == before


def test_a_finished_corpus_is_left_as_it_is(copy):
    before = contents(copy)
    assert build_corpus(copy, **SHORT, renderer=always_dying).made == 0
    assert contents(copy) == before


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_demo_corpus import SHORT, quick
from xmodal.data.demo import build_corpus

def die_at_seven(done, total):
    if done == 7:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    build_corpus({folder!r}, **SHORT, renderer=quick, progress=die_at_seven)
"""


def test_a_killed_build_goes_on_where_it_was(quick_corpus, tmp_path):
    folder, script = tmp_path / "killed", tmp_path / "killed.py"
    script.write_text(KILLED.format(tests=str(Path(__file__).parent), folder=str(folder)))
    root = str(Path(__file__).resolve().parents[2])
    killed = subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": root}, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    assert not (folder / "manifest.jsonl").exists()
    with (folder / ".building.jsonl").open("a") as file:
        file.write('{"id": "clip-000')  # a line that was cut
    report = build_corpus(folder, **SHORT, renderer=quick)
    assert report.made == 13
    left = {name: data for name, data in contents(folder).items() if not name.endswith(".part")}
    assert left == contents(quick_corpus)


@pytest.mark.parametrize(
    ("renderer", "reason"), [(hanging, "took longer than 3 s"), (dying, r"ended its process (exit status 7)")]
)
def test_a_clip_that_cannot_be_rendered_is_composed_anew_and_reported(renderer, reason, quick_corpus, tmp_path, caplog):
    report = build_corpus(tmp_path / "unlucky", **SHORT, renderer=renderer, time_limit_seconds=3.0)
    assert report.recomposed == {UNLUCKY_CLIP: f"composition seed {UNLUCKY_SEED} {reason}"}
    assert f"clip {UNLUCKY_CLIP} is composed anew" in caplog.text
    tracks = read_tracks(report.manifest)
    assert [track.extra["attempt"] for track in tracks] == [int(clip == UNLUCKY_CLIP) for clip in range(20)]
    ours, theirs = contents(tmp_path / "unlucky"), contents(quick_corpus)
    assert {name for name in ours if ours[name] != theirs[name]} == {"manifest.jsonl", "audio/clip-00003.wav"}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no alarms")
def test_a_worker_that_hangs_ends_even_when_nobody_is_left_to_end_it(tmp_path):
    (tmp_path / "audio").mkdir()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=serve, args=(theirs, tmp_path, RECIPE, hanging, 0.1), daemon=True)
    worker.start()
    assert ours.recv() is None
    ours.send((UNLUCKY_CLIP, 0))
    worker.join(timeout=60)
    assert worker.exitcode == -signal.SIGALRM


def test_a_clip_that_never_works_ends_the_build_by_name(tmp_path):
    with pytest.raises(DataError, match="could not be rendered in 5 attempts"):
        build_corpus(tmp_path, **SHORT, renderer=always_dying, workers=1)


def test_an_error_of_a_worker_is_the_builds_own(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        build_corpus(tmp_path, **SHORT, renderer=full_disk)


def test_another_recipe_in_the_same_folder_is_refused(copy):
    with pytest.raises(DataError, match=r"'seed': 5.*'seed': 6.*choose another folder"):
        build_corpus(copy, **{**SHORT, "seed": 6}, renderer=quick)
    (copy / "corpus.json").write_text("[1,")
    with pytest.raises(DataError, match="is no recipe of a corpus"):
        build_corpus(copy, **SHORT, renderer=quick)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clips": 19}, "clips must be at least 20, .* got 19"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"seconds": 1.0}, "seconds must be from 2 to 60, got 1"),
        ({"sample_rate": 8000}, "from 16000 to 48000 Hz, got 8000"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build_corpus(tmp_path / "never", **arguments)
    assert not (tmp_path / "never").exists()


def test_the_recipe_is_written_beside_the_clips(quick_corpus):
    recipe = json.loads((quick_corpus / "corpus.json").read_text())
    assert {name: recipe[name] for name in ("seed", "seconds", "sample_rate")} == {
        "seed": 5,
        "seconds": 2.0,
        "sample_rate": RATE,
    }
