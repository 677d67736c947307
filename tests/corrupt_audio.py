"""Writes small audio files of every kind, and breaks them in the ways that files break."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import soundfile

SOUNDFILE_KINDS = {
    ".wav": {"format": "WAV", "subtype": "PCM_16"},
    ".aiff": {"format": "AIFF", "subtype": "PCM_16"},
    ".flac": {"format": "FLAC", "subtype": "PCM_16"},
    ".mp3": {"format": "MP3"},
    ".ogg": {"format": "OGG", "subtype": "VORBIS"},
    ".opus": {"format": "OGG", "subtype": "OPUS"},
}
AV_KINDS = {
    ".m4a": ("aac", "ipod"),
    ".aac": ("aac", "adts"),
    ".mka": ("aac", "matroska"),
    ".webm": ("libopus", "webm"),
    ".wma": ("wmav2", "asf"),
}
ALL_KINDS = [*SOUNDFILE_KINDS, *AV_KINDS]


def chirp(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A rising tone with a little noise, [frames, channels], different in every channel and at every moment."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal((len(time), channels))
    tone = np.sin(2 * np.pi * (200 + 150 * time) * time)
    return (0.4 * tone[:, None] * np.linspace(1, 0.5, channels) + 0.02 * noise).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int) -> Path:
    """Encode [frames] or [frames, channels] as the kind that the suffix names."""
    if path.suffix in SOUNDFILE_KINDS:
        soundfile.write(path, samples, rate, **SOUNDFILE_KINDS[path.suffix])
        return path
    codec, container = AV_KINDS[path.suffix]
    return write_with_av(path, samples, rate, codec=codec, container=container)


def write_with_av(
    path: Path, samples: np.ndarray, rate: int, *, codec: str, container: str, options: dict[str, str] | None = None
) -> Path:
    samples = samples if samples.ndim == 2 else samples[:, None]
    layout = "stereo" if samples.shape[1] == 2 else "mono"
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout, bit_rate=64_000 * samples.shape[1])
        context = stream.codec_context
        shaped = av.AudioResampler(
            format=context.format, layout=layout, rate=rate, frame_size=context.frame_size or 1024
        )
        for piece in [*shaped.resample(frame), *shaped.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return path


def write_mp3_without_length(path: Path, samples: np.ndarray, rate: int) -> Path:
    """A variable-rate MP3 with no Xing or Info header, so that nothing in it says how long it is."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, :1].T), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = rate, 0
    options = {"write_xing": "0", "id3v2_version": "0"}
    with av.open(str(path), "w", format="mp3", options=options) as output:
        variable_rate = {"flags": "+qscale", "global_quality": "236"}  # quality 2, in FFmpeg's units of 1/118
        stream = output.add_stream("libmp3lame", rate=rate, layout="mono", options=variable_rate)
        shaped = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate, frame_size=1152)
        for piece in [*shaped.resample(frame), *shaped.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return path


def write_silent_wav(path: Path, seconds: float, rate: int) -> Path:
    """16-bit mono zeros of any length as a sparse file, which takes no room and no time to write."""
    size = round(seconds * rate) * 2
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size
    )
    path.write_bytes(header)
    with path.open("r+b") as file:
        file.truncate(len(header) + size)
    return path


def truncated(path: Path, share: float) -> Path:
    """The first ``share`` of the file's bytes."""
    data = path.read_bytes()
    short = path.with_name(f"short-{path.name}")
    short.write_bytes(data[: round(len(data) * share)])
    return short


def with_flipped_bits(path: Path, count: int, *, seed: int, after: float = 0.1) -> Path:
    """``count`` random bits flipped in the bytes behind the first ``after`` share of the file."""
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(round(len(data) * after), len(data), count):
        data[place] ^= 1 << int(rng.integers(8))
    flipped = path.with_name(f"flipped-{path.name}")
    flipped.write_bytes(data)
    return flipped


def flac_that_claims(path: Path, frames: int) -> Path:
    """The FLAC with another number of samples in its header (36 bits; 0 means unknown)."""
    data = bytearray(path.read_bytes())
    fields = int.from_bytes(data[18:26], "big")  # rate, channels, depth and length, right behind the frame sizes
    data[18:26] = (fields >> 36 << 36 | frames).to_bytes(8, "big")
    liar = path.with_name(f"claims-{frames}-{path.name}")
    liar.write_bytes(data)
    return liar
