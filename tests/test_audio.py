"""Files become honest samples or are refused with a reason."""

from __future__ import annotations

import json
import os
import random
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from corrupt_audio import (
    ALL_KINDS,
    AV_KINDS,
    SOUNDFILE_KINDS,
    chirp,
    flac_that_claims,
    truncated,
    with_flipped_bits,
    write,
    write_mp3_without_length,
    write_silent_wav,
    write_with_av,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodal.audio import (
    AUDIO_SUFFIXES,
    LOAD_LIMIT_SECONDS,
    PEAK_LIMIT,
    AudioInfo,
    WindowPolicy,
    cut,
    digest,
    find_audio,
    load,
    probe,
    windows,
)
from xmodal.audio.decode import _frame_values
from xmodal.errors import AudioError

RATE = 48_000
SECONDS = 4.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same stereo chirp in every kind of file."""
    folder = tmp_path_factory.mktemp("kinds")
    samples = chirp(SECONDS, RATE, 2)
    found = {suffix: write(folder / f"chirp{suffix}", samples, RATE) for suffix in ALL_KINDS}
    found["cbr.mp3"] = write_with_av(
        folder / "cbr.mp3", samples, RATE, codec="libmp3lame", container="mp3", options={"write_xing": "0"}
    )
    found["vbr.mp3"] = write_mp3_without_length(folder / "vbr.mp3", samples, RATE)
    found["alac.m4a"] = write_with_av(folder / "alac.m4a", samples, RATE, codec="alac", container="ipod")
    return found


EVERY_FILE = [*ALL_KINDS, "cbr.mp3", "vbr.mp3", "alac.m4a"]


def wav(path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples, rate, format="WAV", subtype=subtype)
    return path


# Decoding


@pytest.mark.parametrize("kind", EVERY_FILE)
def test_every_kind_gives_the_sound_that_was_written(files, kind):
    written = chirp(SECONDS, RATE, 2).mean(axis=1)
    read = load(files[kind], RATE)
    assert read.dtype == np.float32
    assert read.ndim == 1
    assert abs(len(read) - len(written)) < 0.05 * RATE
    # Raw AAC, WMA and an MP3 without its header do not say how much encoder delay to drop.
    delay = 0
    if kind in (".aac", ".wma", "cbr.mp3", "vbr.mp3"):
        delay = int(np.argmax(np.correlate(read[:12_000], written[:12_000], "full"))) - 11_999
        assert abs(delay) < 2_500
    heard, meant = read[max(delay, 0) :][: 3 * RATE], written[max(-delay, 0) :][: 3 * RATE]
    assert np.corrcoef(heard, meant)[0, 1] > 0.98


@pytest.mark.parametrize("kind", [".wav", ".aiff", ".flac", "alac.m4a"])
def test_lossless_kinds_give_the_written_samples(files, kind):
    written = np.round(chirp(SECONDS, RATE, 2) * 32_768) / 32_768
    np.testing.assert_allclose(load(files[kind], RATE), written.mean(axis=1), atol=2 / 32_768)


@pytest.mark.parametrize("kind", EVERY_FILE)
def test_probe_agrees_with_what_is_decoded(files, kind):
    info = probe(files[kind])
    assert (info.sample_rate, info.channels) == (RATE, 1 if kind == "vbr.mp3" else 2)
    assert abs(info.frames - len(load(files[kind], RATE))) < 0.05 * RATE
    assert info.duration_seconds == info.frames / RATE


def test_probe_names_container_and_codec(files):
    assert probe(files[".flac"]) == AudioInfo(RATE, 2, int(RATE * SECONDS), SECONDS, "flac/pcm_16")
    assert probe(files[".opus"]).format == "ogg/opus"
    assert probe(files[".m4a"]).format == "mov/aac"


@pytest.mark.parametrize(("kind", "name"), [(".m4a", "song.wav"), (".wav", "song.mp3"), (".flac", "song.raw")])
def test_the_suffix_does_not_matter(files, tmp_path, kind, name):
    renamed = tmp_path / name
    renamed.write_bytes(files[kind].read_bytes())
    assert np.array_equal(load(renamed, 24_000), load(files[kind], 24_000))


def test_a_name_that_looks_like_an_address_is_only_a_name(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("concat:a").write_bytes(files[".m4a"].read_bytes())
    assert len(load("concat:a", 24_000)) > 0


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_channels_are_mixed_to_their_mean(tmp_path, channels):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (1_000, channels)).astype(np.float32)
    mixed = load(wav(tmp_path / "a.wav", samples), 16_000)
    np.testing.assert_allclose(mixed, samples.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("layout", "values", "expected"),
    [
        ("u8", np.array([[0, 128, 255, 128]], np.uint8), [[-1, 0], [127 / 128, 0]]),
        ("s16", np.array([[-32_768, 0, 16_384, 1]], np.int16), [[-1, 0], [0.5, 1 / 32_768]]),
        ("s16p", np.array([[-32_768, 0], [16_384, 1]], np.int16), [[-1, 0.5], [0, 1 / 32_768]]),
        ("s32", np.array([[-(2**31), 0, 2**30, 2**29]], np.int32), [[-1, 0], [0.5, 0.25]]),
        ("flt", np.array([[0.1, 0.2, 0.3, 0.4]], np.float32), [[0.1, 0.2], [0.3, 0.4]]),
        ("dblp", np.array([[0.1, 0.2], [0.3, 0.4]], np.float64), [[0.1, 0.3], [0.2, 0.4]]),
    ],
)
def test_ffmpeg_frames_of_every_layout_become_frames_by_channels(layout, values, expected):
    frame = av.AudioFrame.from_ndarray(values, format=layout, layout="stereo")
    np.testing.assert_allclose(_frame_values(frame), np.array(expected, np.float32), atol=1e-7)


# Rates, clipping, and odd but honest files


@pytest.mark.parametrize("file_rate", [8_000, 11_025, 44_100, 44_101, 192_000])
@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_resampling_is_soxr_hq_of_the_whole_signal(tmp_path, file_rate, rate):
    samples = chirp(2.7, file_rate, 2)
    expected = soxr.resample(samples.mean(axis=1), file_rate, rate, "HQ")
    got = load(wav(tmp_path / "a.wav", samples, file_rate), rate)
    assert len(got) == len(expected)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("file_rate", [8_000, 44_100, 192_000])
def test_a_tone_keeps_its_pitch_level_and_moment(tmp_path, file_rate):
    tone = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(file_rate) / file_rate)
    got = load(wav(tmp_path / "a.wav", tone, file_rate), 24_000)
    expected = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(24_000) / 24_000)
    np.testing.assert_allclose(got[1_000:-1_000], expected[1_000:-1_000], atol=1e-3)


def test_overshoot_is_clipped_to_one(tmp_path):
    samples = np.tile([1.5, -1.5, 0.5], 1_000)
    assert np.array_equal(load(wav(tmp_path / "a.wav", samples), 16_000), np.tile([1, -1, 0.5], 1_000))
    resampled = load(tmp_path / "a.wav", 24_000)
    assert (resampled.min(), resampled.max()) == (-1, 1)


def test_silence_is_honest_audio(tmp_path):
    silence = load(wav(tmp_path / "a.wav", np.zeros(16_000)), 24_000)
    assert len(silence) == 24_000
    assert not silence.any()


@pytest.mark.parametrize("kind", [".wav", ".flac", ".mp3", ".ogg"])
def test_one_sample_is_audio(tmp_path, kind):
    path = write(tmp_path / f"one{kind}", np.array([0.5], np.float32), 44_100)
    assert len(load(path, 44_100)) == 1
    (window,) = windows(path, 24_000, WindowPolicy(1.0))
    assert (len(window.samples), window.valid_samples) == (24_000, 1)


def test_less_than_one_sample_at_the_wanted_rate_is_refused(tmp_path):
    with pytest.raises(AudioError, match="shorter than one sample at 8000 Hz"):
        load(wav(tmp_path / "a.wav", np.array([0.5]), 192_000), 8_000)


def test_hundreds_of_channels_are_read_in_smaller_blocks(tmp_path):
    samples = np.random.default_rng(0).uniform(-1, 1, (3_000, 600)).astype(np.float32)
    got = load(wav(tmp_path / "a.wav", samples, 16_000, "PCM_16"), 16_000)
    np.testing.assert_allclose(got, samples.mean(axis=1), atol=1e-4)


def test_a_wav_that_was_streamed_declares_no_length_and_is_read_to_its_end(tmp_path):
    path = wav(tmp_path / "a.wav", chirp(1.0, 16_000), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(load(path, 16_000)) == 16_000


def test_a_flac_of_unknown_length_is_read_to_its_end(files):
    path = flac_that_claims(files[".flac"], 0)
    assert probe(path).frames == RATE * SECONDS
    assert np.array_equal(load(path, 24_000), load(files[".flac"], 24_000))
    assert len(load(path, 24_000, start_seconds=3.0)) == 24_000


@pytest.mark.parametrize("quiet_first", [True, False])
def test_a_variable_rate_mp3_without_a_header_is_read_to_its_end(tmp_path, quiet_first):
    # libsndfile guesses its length from the first frame's bit rate and would stop a third of the way.
    parts = [np.zeros((RATE * 3, 1), np.float32), chirp(3.0, RATE, seed=1)]
    samples = np.concatenate(parts if quiet_first else parts[::-1])
    got = load(write_mp3_without_length(tmp_path / "a.mp3", samples, RATE), RATE)
    assert abs(len(got) - len(samples)) < 0.1 * RATE
    assert np.abs(got[: RATE * 2]).max() < 0.1 or not quiet_first
    assert np.abs(got[-RATE * 2 :]).max() > 0.2 or not quiet_first


def test_an_mp3_with_a_picture_in_its_tag_is_read(files, tmp_path):
    picture = b"\xff\xd8Xing\0\0\0\1" * 5_000  # looks like JPEG, sync words and a Xing header
    tag = b"ID3\4\0\0" + bytes(len(picture) >> shift & 127 for shift in (21, 14, 7, 0))
    path = tmp_path / "tagged.mp3"
    path.write_bytes(tag + picture + files[".mp3"].read_bytes())
    assert np.array_equal(load(path, 24_000), load(files[".mp3"], 24_000))
    path.write_bytes(tag + picture + files["vbr.mp3"].read_bytes())
    assert len(load(path, 24_000)) == pytest.approx(len(load(files["vbr.mp3"], 24_000)), abs=1_200)


# Parts and windows of files


@pytest.mark.parametrize("kind", EVERY_FILE)
@pytest.mark.parametrize("rate", [RATE, 24_000, 22_050])
def test_a_part_is_that_slice_of_the_whole(files, kind, rate):
    whole = load(files[kind], rate)
    for start, duration in [(0.0, 1.0), (0.1, 0.2), (1.2345, 1.5), (2.0, None), (3.9, 1.0)]:
        first = round(start * rate)
        expected = whole[first:] if duration is None else whole[first : first + round(duration * rate)]
        part = load(files[kind], rate, start_seconds=start, duration_seconds=duration)
        assert len(part) == len(expected)
        np.testing.assert_allclose(part, expected, atol=0 if rate == RATE else 1e-5)


def test_a_part_of_a_low_rate_mp3_has_the_bits_of_the_frames_before_it(tmp_path):
    # Quiet frames save their bits for the loud ones after them, so a decoder must begin well before those.
    rng = np.random.default_rng(0)
    loudness = np.repeat(rng.choice([0.0, 0.001, 0.4], 60), RATE // 10)[:, None]
    path = write(tmp_path / "a.mp3", (loudness * rng.standard_normal((len(loudness), 1))).astype(np.float32), RATE)
    whole = load(path, RATE)
    for start in rng.uniform(0, 5.9, 60):
        first = round(start * RATE)
        part = load(path, RATE, start_seconds=start, duration_seconds=0.1)
        np.testing.assert_allclose(part, whole[first : first + RATE // 10], atol=1e-6)


def test_a_part_of_the_last_vorbis_page_is_that_slice_of_the_whole(tmp_path):
    # The last page's granule position is where the sound ends and not where its packets do, which misleads a seek.
    path = write(tmp_path / "a.ogg", chirp(5.001, 16_000), 16_000)
    whole = load(path, 16_000)
    for start in np.linspace(3.0, 4.9, 20):
        first = round(start * 16_000)
        part = load(path, 16_000, start_seconds=start, duration_seconds=0.1)
        assert np.array_equal(part, whole[first : first + 1_600])


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 3.9), st.floats(0.001, 5), st.sampled_from([8_000, 16_000, 44_100, 47_999, RATE, 96_000]))
def test_any_part_at_any_rate_is_that_slice_of_the_whole(files, start, duration, rate):
    whole = load(files[".flac"], rate)
    first = round(start * rate)
    part = load(files[".flac"], rate, start_seconds=start, duration_seconds=duration)
    expected = whole[first : first + round(duration * rate)]
    assert len(part) == len(expected)
    np.testing.assert_allclose(part, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [".wav", ".flac", ".opus", ".mp3"])
def test_a_part_in_the_middle_is_not_decoded_from_the_start(files, kind, monkeypatch):
    read = 0
    original = soundfile.SoundFile.read

    def counting(self, *args, **kwargs):
        nonlocal read
        block = original(self, *args, **kwargs)
        read += len(block)
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    load(files[kind], 24_000, start_seconds=2.5, duration_seconds=0.5)
    assert 0.5 * RATE <= read <= (2.1 if kind == ".mp3" else 1.1) * RATE


@pytest.mark.parametrize("kind", EVERY_FILE)
@pytest.mark.parametrize("rate", [RATE, 16_000])
@pytest.mark.parametrize(
    "policy",
    [WindowPolicy(1.5), WindowPolicy(1.0, 0.3, "pad"), WindowPolicy(0.5, 0.9, "drop"), WindowPolicy(10.0)],
    ids=str,
)
def test_the_windows_of_a_file_are_those_cut_from_it(files, kind, rate, policy):
    streamed = list(windows(files[kind], rate, policy))
    whole = cut(load(files[kind], rate), rate, policy)
    assert len(streamed) == len(whole)
    for got, expected in zip(streamed, whole, strict=True):
        assert np.array_equal(got.samples, expected.samples)
        assert (got.start_seconds, got.valid_samples) == (expected.start_seconds, expected.valid_samples)


def test_windows_of_a_part_count_their_time_from_the_start_of_the_file(files):
    policy = WindowPolicy(1.0)
    part = load(files[".flac"], 24_000, start_seconds=0.5, duration_seconds=2.3)
    streamed = list(windows(files[".flac"], 24_000, policy, start_seconds=0.5, end_seconds=2.8))
    assert [window.start_seconds for window in streamed] == [0.5, 1.5, 1.8]
    for got, expected in zip(streamed, cut(part, 24_000, policy), strict=True):
        assert np.array_equal(got.samples, expected.samples)


def test_an_end_beyond_the_file_means_its_end(files):
    policy = WindowPolicy(1.0, last="pad")
    assert len(list(windows(files[".ogg"], 24_000, policy, start_seconds=2.5, end_seconds=99.0))) == 2
    assert len(load(files[".ogg"], 24_000, start_seconds=2.5, duration_seconds=99.0)) == 36_000


@pytest.mark.parametrize("rate", [RATE, 24_000])
@pytest.mark.parametrize("kind", [".wav", ".mp3", ".ogg", ".m4a", "vbr.mp3"])
@pytest.mark.parametrize("start", [4.2, 4.9, 1e6])
def test_a_start_beyond_the_end_is_refused(files, kind, rate, start):
    with pytest.raises(AudioError, match="it ends earlier"):
        load(files[kind], rate, start_seconds=start, duration_seconds=1.0)


def test_a_start_beyond_the_end_of_a_flac_of_unknown_length_is_refused(files):
    with pytest.raises(AudioError, match=r"no readable audio at 9\.\d\d s"):
        load(flac_that_claims(files[".flac"], 0), 24_000, start_seconds=10.0)


def test_three_hours_are_cut_in_bounded_memory(tmp_path):
    path = write_silent_wav(tmp_path / "long.wav", 3 * 3600, 8_000)
    tracemalloc.start()
    try:
        count = sum(1 for _ in windows(path, 8_000, WindowPolicy(10.0)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 1_080
    assert peak < 4e6


def test_a_file_that_is_left_in_the_middle_is_closed(files):
    before = set(os.listdir("/dev/fd"))
    iterator = windows(files[".flac"], 24_000, WindowPolicy(1.0))
    next(iterator)
    iterator.close()
    assert set(os.listdir("/dev/fd")) == before


# Arguments


@pytest.mark.parametrize("rate", [0, -1, 999, 10**7])
def test_an_impossible_rate_is_refused(files, rate):
    with pytest.raises(ValueError, match=f"sample_rate must be from 1000 to 1536000 Hz, got {rate}"):
        load(files[".wav"], rate)
    with pytest.raises(ValueError, match="sample_rate must be"):
        windows(files[".wav"], rate, WindowPolicy())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_seconds": -0.1}, "start_seconds must be from 0 to 1e\\+09 seconds, got -0.1"),
        ({"start_seconds": float("nan")}, "start_seconds must be from 0"),
        ({"duration_seconds": float("inf")}, "duration_seconds must be from 0"),
        ({"duration_seconds": 0.0}, "duration_seconds must be at least one sample at 24000 Hz, got 0.0"),
        ({"max_seconds": 0.0}, "max_seconds must be a positive number of seconds, or None for no limit, got 0.0"),
    ],
)
def test_impossible_parts_are_refused(files, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(files[".wav"], 24_000, **arguments)


def test_windows_refuses_bad_arguments_at_once(files):
    with pytest.raises(ValueError, match="end_seconds must be after start_seconds=2.0, got 1.0"):
        windows(files[".wav"], 24_000, WindowPolicy(), start_seconds=2.0, end_seconds=1.0)
    with pytest.raises(ValueError, match="hop_seconds=1e-09 is shorter than one sample"):
        windows(files[".wav"], 24_000, WindowPolicy(1.0, 1e-9))
    with pytest.raises(ValueError, match="max_seconds must be"):
        windows(files[".wav"], 24_000, WindowPolicy(), max_seconds=-1.0)


# Refusals


def refusal(path: Path | str, rate: int = 24_000) -> str:
    """The one reason for which load, and windows, refuse the file."""
    with pytest.raises(AudioError) as of_load:
        load(path, rate)
    with pytest.raises(AudioError) as of_windows:
        list(windows(path, rate, WindowPolicy(1.0)))
    assert of_load.value.path == Path(path)
    assert of_load.value.reason == of_windows.value.reason
    assert str(of_load.value) == f"{path}: {of_load.value.reason}"
    assert "\n" not in of_load.value.reason
    return of_load.value.reason


def test_files_that_are_not_there_or_no_files_are_refused(tmp_path):
    assert refusal(tmp_path / "nothing.wav") == "does not exist; check the path"
    assert refusal(tmp_path).startswith("is a folder, not an audio file")
    (tmp_path / "empty.mp3").touch()
    assert refusal(tmp_path / "empty.mp3") == "is empty (0 bytes); get it again"
    assert "is not a possible path" in refusal(tmp_path / "a\0b.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    assert "is a device or a pipe" in refusal(tmp_path / "pipe.wav")
    for ask in (probe, digest):
        with pytest.raises(AudioError, match="check the path"):
            ask(tmp_path / "nothing.wav")


@pytest.mark.parametrize(
    "data",
    [
        b"just a text\n" * 100,
        bytes(5_000),
        random.Random(0).randbytes(50_000),
        b"RIFF\x24\0\0\0WAVE",
        b"OggS" + bytes(60),
        b"ID3\4\0\0\0\0\0\0" + bytes(100),
        b"fLaC" + bytes(100),
    ],
    ids=["text", "zeros", "noise", "riff", "ogg", "id3", "flac"],
)
def test_what_is_not_audio_is_refused(tmp_path, data):
    path = tmp_path / "a.mp3"
    path.write_bytes(data)
    assert refusal(path).startswith(("is not audio", "is cut short", "is damaged", "holds no audio"))


def test_a_playlist_is_not_followed(files, tmp_path):
    path = tmp_path / "list.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{files['.aac']}\n#EXT-X-ENDLIST\n")
    assert "is not audio" in refusal(path)


def test_a_film_without_sound_is_refused(tmp_path):
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(stream.encode(None))
    assert refusal(path) == "holds no audio stream; choose another file"


@pytest.mark.parametrize("kind", [".wav", ".aiff", ".ogg"])
def test_a_file_without_samples_is_refused(tmp_path, kind):
    path = write(tmp_path / f"none{kind}", np.zeros(0, np.float32), 44_100)
    assert refusal(path) == "holds no audio samples; get it again"
    with pytest.raises(AudioError, match="holds no audio samples"):
        probe(path)


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("kind", [kind for kind in EVERY_FILE if kind not in ("cbr.mp3", "vbr.mp3", ".wma")])
def test_a_file_that_was_cut_short_is_refused(files, kind, share):
    assert any(words in refusal(truncated(files[kind], share)) for words in ("cut short", "damaged"))


@pytest.mark.parametrize("share", [0.5, 0.97])
def test_an_m4a_with_its_index_in_front_that_was_cut_short_is_refused(tmp_path, share):
    path = write_with_av(
        tmp_path / "a.m4a", chirp(8.0, RATE), RATE, codec="aac", container="mp4", options={"movflags": "+faststart"}
    )
    assert len(load(path, 24_000)) > 0
    assert any(words in refusal(truncated(path, share)) for words in ("cut short", "damaged"))


@pytest.mark.parametrize("kind", [".wav", ".aiff", ".flac"])
def test_a_few_missing_bytes_are_noticed(files, kind, tmp_path):
    path = tmp_path / f"a{kind}"
    path.write_bytes(files[kind].read_bytes()[:-10])
    assert any(words in refusal(path) for words in ("cut short", "damaged"))


@pytest.mark.parametrize("kind", [".ogg", ".opus"])
def test_an_ogg_cut_between_two_pages_is_refused(files, kind, tmp_path):
    data = files[kind].read_bytes()
    path = tmp_path / f"a{kind}"
    path.write_bytes(data[: data.rfind(b"OggS")])
    assert "does not end with a last Ogg page" in refusal(path)
    path.write_bytes(data + b"TAG" + bytes(125))
    assert np.array_equal(load(path, 24_000), load(files[kind], 24_000))


def test_an_mp3_that_lost_a_tenth_of_a_second_is_refused(files):
    reason = refusal(truncated(files[".mp3"], 0.95))
    assert reason.startswith("is cut short or damaged: its header declares 4.00 s and only 3.")
    assert reason.endswith("s can be decoded; re-encode it or get a complete copy")


@pytest.mark.parametrize("kind", [".flac", ".ogg", ".opus"])
def test_one_flipped_bit_is_noticed_where_the_format_has_checksums(files, kind):
    for seed in range(5):
        assert any(
            words in refusal(with_flipped_bits(files[kind], 1, seed=seed, after=0.2))
            for words in ("cut short", "damaged")
        )


def test_an_mp3_of_flipped_bits_is_refused(files):
    assert any(
        words in refusal(with_flipped_bits(files[".mp3"], 400, seed=3)) for words in ("cut short", "damaged", "damage")
    )


@pytest.mark.parametrize("kind", [*SOUNDFILE_KINDS, *AV_KINDS])
def test_flipped_bits_never_give_anything_but_samples_or_a_refusal(files, kind):
    for seed in range(6):
        path = with_flipped_bits(files[kind], 30, seed=seed, after=0.0)
        try:
            samples = load(path, 24_000)
        except AudioError:
            continue
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_that_are_no_numbers_are_refused(tmp_path, value, channels):
    samples = chirp(1.0, 16_000, channels)
    samples[12_345, channels - 1] = value
    assert refusal(wav(tmp_path / "a.wav", samples)) == "holds NaN or infinite samples; repair or re-encode it"


def test_samples_that_overflow_are_refused(tmp_path):
    assert "infinite" in refusal(wav(tmp_path / "sum.wav", np.full((100, 2), 3e38)))
    assert "infinite" in refusal(wav(tmp_path / "cast.wav", np.full(100, 1e300), subtype="DOUBLE"))


@pytest.mark.parametrize("sign", [1, -1])
def test_unscaled_integers_are_refused(tmp_path, sign):
    samples = np.zeros(16_000)
    samples[500] = sign * 32_000
    assert refusal(wav(tmp_path / "a.wav", samples)).startswith("holds samples of 3.2e+04, far outside [-1, 1]")
    samples[500] = sign * PEAK_LIMIT
    assert np.abs(load(wav(tmp_path / "b.wav", samples), 16_000)).max() == 1


@pytest.mark.parametrize("rate", [500, 2_000_000])
def test_a_file_of_an_absurd_rate_is_refused(tmp_path, rate):
    assert f"declares a sample rate of {rate} Hz" in refusal(wav(tmp_path / "a.wav", np.zeros(5_000), rate))


def test_a_stream_that_changes_its_rate_is_refused(tmp_path):
    first = write(tmp_path / "a.aac", chirp(1.0, 44_100, 2), 44_100)
    second = write(tmp_path / "b.aac", chirp(1.0, 22_050, 2), 22_050)
    path = tmp_path / "both.aac"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    assert "changes its sample rate or channels at 1.0" in refusal(path)


def test_a_header_that_claims_2_to_the_36_samples_asks_for_no_memory(files):
    path = flac_that_claims(files[".flac"], 2**36 - 1)
    with pytest.raises(AudioError, match="holds more audio than the limit of 14400 s"):
        load(path, 24_000)
    tracemalloc.start()
    try:
        with pytest.raises(AudioError, match="cut short or damaged: its header declares"):
            load(path, 24_000, max_seconds=None)
        with pytest.raises(AudioError, match="cut short or damaged: its header declares"):
            list(windows(path, 24_000, WindowPolicy(1.0)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8e6
    whole = load(files[".flac"], 24_000)
    assert np.array_equal(load(path, 24_000, duration_seconds=1.0), whole[:24_000])


def test_windows_come_until_the_damage_shows(files):
    taken = []
    with pytest.raises(AudioError, match="cut short or damaged"):
        taken.extend(windows(flac_that_claims(files[".flac"], 2 * int(RATE * SECONDS)), 24_000, WindowPolicy(1.0)))
    assert len(taken) == 3  # what "shift" makes of the last second is known only at the end


def test_a_decompression_bomb_is_refused_without_decoding_it(tmp_path, monkeypatch):
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", 1_000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(16):
            file.write(np.zeros(1_000_000, np.int16))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(soundfile.SoundFile, "read", None)
    with pytest.raises(AudioError, match=r"limit of 14400 s \(at least 16000.0 s\); read it with windows\(\)"):
        load(path, 48_000)
    with pytest.raises(AudioError, match="limit of 60 s"):
        next(windows(path, 48_000, WindowPolicy(), max_seconds=60.0))


def test_the_limit_holds_where_no_length_is_declared(files):
    path = flac_that_claims(files[".flac"], 0)
    with pytest.raises(AudioError, match="holds more audio than the limit of 2 s"):
        load(path, 24_000, max_seconds=2.0)
    assert len(load(path, 24_000, max_seconds=4.0)) == 24_000 * 4
    assert len(load(path, 24_000, duration_seconds=1.5, max_seconds=2.0)) == 36_000
    assert LOAD_LIMIT_SECONDS > 3 * 3600


def test_a_part_of_a_long_file_is_within_the_limit(files):
    assert len(load(files[".wav"], 24_000, start_seconds=2.5, max_seconds=2.0)) == 36_000
    assert len(load(files[".wav"], 24_000, duration_seconds=2.0, max_seconds=2.0)) == 48_000
    with pytest.raises(AudioError, match="limit of 2 s"):
        load(files[".wav"], 24_000, start_seconds=1.5, max_seconds=2.0)


@pytest.mark.parametrize("kind", [".mp3", ".ogg", ".flac", ".m4a", "vbr.mp3"])
def test_a_refused_file_is_closed(files, kind):
    before = set(os.listdir("/dev/fd"))
    for share in (0.01, 0.5):
        path = truncated(files[kind], share)
        for ask in (probe, lambda path: load(path, 24_000)):
            try:
                ask(path)
            except AudioError:
                continue
    assert set(os.listdir("/dev/fd")) == before


# Folders and digests


def test_find_audio_lists_audio_of_all_subfolders_in_order(tmp_path):
    for name in [
        "b.wav",
        "a.FLAC",
        "sub/c.mp3",
        "sub/deep/d.opus",
        "notes.txt",
        ".hidden.wav",
        ".git/e.wav",
        "._b.wav",
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    expected = ["a.FLAC", "b.wav", "sub/c.mp3", "sub/deep/d.opus"]
    assert find_audio(tmp_path) == [tmp_path / name for name in expected]


def test_find_audio_follows_links_once_and_survives_loops(tmp_path):
    library, elsewhere = tmp_path / "library", tmp_path / "elsewhere"
    for folder in (library / "real", elsewhere):
        folder.mkdir(parents=True)
        (folder / "a.wav").touch()
    (library / "alias").symlink_to(library / "real")
    (library / "real" / "loop").symlink_to(library)
    (library / "outside").symlink_to(elsewhere)
    (library / "outside-again").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(library / "real")
    (library / "linked.wav").symlink_to(elsewhere / "a.wav")
    (library / "dangling.wav").symlink_to(tmp_path / "nothing.wav")
    assert find_audio(library) == [library / "linked.wav", library / "outside" / "a.wav", library / "real" / "a.wav"]


def test_find_audio_refuses_what_is_no_folder(tmp_path):
    with pytest.raises(AudioError, match="is not a folder; give an existing folder"):
        find_audio(tmp_path / "nothing")


def test_find_audio_leaves_no_folder_out_silently(tmp_path, monkeypatch):
    def refuse(place):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(AudioError, match="cannot be listed \\(Permission denied\\)"):
        find_audio(tmp_path)


def test_every_kind_that_is_read_here_is_found():
    assert set(ALL_KINDS) <= AUDIO_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in AUDIO_SUFFIXES)


def test_a_digest_names_the_bytes_and_not_the_file(tmp_path):
    first, second = tmp_path / "a.wav", tmp_path / "b.mp3"
    first.write_bytes(b"x" * 3_000_000)
    second.write_bytes(b"x" * 3_000_000)
    assert digest(first) == digest(second)
    second.write_bytes(b"x" * 2_999_999 + b"y")
    assert digest(first) != digest(second)
    first.write_bytes(b"abc")
    # BLAKE2b with 16 bytes of output, of "abc".
    assert digest(first) == "cf4ab791c62b8d2b2109c90275287816"


# Real recordings


@pytest.mark.parametrize("name", ["esc10", "cc0notes", "ccmusic", "folkrender", "spoken_digits"])
def test_real_recordings_are_read_whole_and_in_parts(shared_audio, name):
    rows = [json.loads(line) for line in (shared_audio / f"{name}.jsonl").read_text().splitlines()]
    rows.sort(key=lambda row: row["duration"])
    policy = WindowPolicy(2.0, 1.5)
    for row in rows[:: max(1, len(rows) // 4)][:4]:
        path = shared_audio.parent / row["path"]
        samples = load(path, 24_000)
        assert len(samples) / 24_000 == pytest.approx(row["duration"], abs=0.02)
        assert probe(path).duration_seconds == pytest.approx(row["duration"], abs=0.02)
        half = round(len(samples) / 2)
        part = load(path, 24_000, start_seconds=half / 24_000, duration_seconds=1.0)
        np.testing.assert_allclose(part, samples[half : half + 24_000], atol=1e-5)
        for got, expected in zip(windows(path, 24_000, policy), cut(samples, 24_000, policy), strict=True):
            assert np.array_equal(got.samples, expected.samples)
