"""Thousands of broken audio files, made of small good ones: mutant ``number`` is always the same file."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import soundfile
from corrupt_audio import ALL_KINDS, chirp, flac_that_claims, write

ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE)


def seeds(folder: Path) -> list[bytes]:
    """One small file of each kind, mono and stereo."""
    files = []
    for kind in ALL_KINDS:
        for channels, rate in ((1, 8000), (2, 48000)):
            rate = 48000 if kind in (".webm", ".mka", ".wma", ".aac", ".m4a") else rate
            path = write(folder / f"seed-{channels}{kind}", chirp(0.25, rate, channels), rate)
            files.append(path.read_bytes())
    return files


def mutant(number: int, good: list[bytes]) -> bytes:
    """Broken file ``number``: a good one after one to four accidents."""
    rng = np.random.default_rng(number)
    data = bytearray(good[number % len(good)])
    for _ in range(int(rng.integers(1, 5))):
        data = _ACCIDENTS[int(rng.integers(len(_ACCIDENTS)))](data, rng, good)
    return bytes(data[:1_000_000])


def _place(data: bytearray, rng: np.random.Generator, within: int | None = None) -> int:
    return int(rng.integers(max(1, min(len(data), within or len(data)))))


def _flip(data, rng, good):
    for _ in range(int(rng.integers(1, 64))):
        if data:
            data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return data


def _flip_head(data, rng, good):
    for _ in range(int(rng.integers(1, 8))):
        if data:
            data[_place(data, rng, 80)] ^= 1 << int(rng.integers(8))
    return data


def _odd_number(data, rng, good):
    """A length, count or rate in the header becomes absurd."""
    place, number = _place(data, rng, 200), ODD_NUMBERS[int(rng.integers(len(ODD_NUMBERS)))]
    width = int(rng.choice([2, 4, 8]))
    data[place : place + width] = (number % 256**width).to_bytes(width, rng.choice(["little", "big"]))
    return data


def _cut(data, rng, good):
    return data[: _place(data, rng) + 1]


def _behead(data, rng, good):
    return data[_place(data, rng) :]


def _remove(data, rng, good):
    place = _place(data, rng)
    del data[place : place + int(rng.integers(1, 2000))]
    return data


def _repeat(data, rng, good):
    first = _place(data, rng)
    last = min(len(data), first + int(rng.integers(1, 3000)))
    return data[:last] + data[first:last] * int(rng.integers(1, 40)) + data[last:]


def _noise(data, rng, good):
    place = _place(data, rng)
    return data[:place] + bytearray(rng.bytes(int(rng.integers(1, 500)))) + data[place:]


def _blank(data, rng, good):
    place, count = _place(data, rng), int(rng.integers(1, 1000))
    data[place : place + count] = bytes([int(rng.choice([0, 255]))]) * len(data[place : place + count])
    return data


def _splice(data, rng, good):
    other = good[int(rng.integers(len(good)))]
    return data[: _place(data, rng)] + bytearray(other[int(rng.integers(len(other))) :])


def _wrong_head(data, rng, good):
    other = good[int(rng.integers(len(good)))]
    count = int(rng.integers(4, 64))
    return bytearray(other[:count]) + data[count:]


def _swap(data, rng, good):
    first, second = sorted((_place(data, rng), _place(data, rng)))
    return data[second:] + data[first:second] + data[:first]


_ACCIDENTS = (
    _flip, _flip_head, _odd_number, _odd_number, _cut, _behead, _remove, _repeat, _noise, _blank, _splice, _wrong_head,
    _swap,
)  # fmt: skip


def wav(channels: int = 1, rate: int = 8000, bits: int = 16, code: int = 1, data: bytes = bytes(800), **false: int):
    """A WAV whose header says what it is told to."""
    align = false.get("align", channels * bits // 8) & 0xFFFF
    fmt = struct.pack("<HHIIHH", code, channels & 0xFFFF, rate, (rate * align) & 0xFFFFFFFF, align, bits)
    size = false.get("size", len(data))
    riff = false.get("riff", 36 + len(data))
    return (
        struct.pack("<4sI4s4sI", b"RIFF", riff, b"WAVE", b"fmt ", 16) + fmt + b"data" + struct.pack("<I", size) + data
    )


def hand_made(folder: Path) -> dict[str, bytes]:
    """The worst files that one can think of, by what is wrong with them."""
    good = write(folder / "good.flac", chirp(0.5, 8000), 8000)
    bomb = io.BytesIO()
    soundfile.write(bomb, np.zeros((8000 * 60 * 20, 1), np.int16), 8000, format="FLAC")
    wide = io.BytesIO()
    soundfile.write(wide, np.zeros((2000, 1000), np.int16), 8000, format="WAV")
    floats = np.zeros(400, np.float32)
    floats[7] = np.nan
    infinite = np.full(400, np.inf, np.float32)
    loud = np.full(400, 3e38, np.float32)
    return {
        "nothing": b"",
        "one byte": b"R",
        "zeros": bytes(100_000),
        "text": b"this is no audio at all\n" * 100,
        "HTML": b"<html><audio src='file:///etc/passwd'></html>",
        "a playlist": b"#EXTM3U\nfile:///etc/passwd\nhttp://127.0.0.1:1/a.mp3\n",
        "HLS": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "a concat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "a cue sheet": b'FILE "/etc/passwd" WAVE\n TRACK 01 AUDIO\n  INDEX 01 00:00:00\n',
        "an SDP": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\nc=IN IP4 127.0.0.1\n",
        "a DASH manifest": b"<?xml version='1.0'?><MPD><Period><BaseURL>file:///etc/passwd</BaseURL></Period></MPD>",
        "a bomb": bomb.getvalue(),
        "1000 channels": wide.getvalue(),
        "NaN": wav(code=3, bits=32, data=floats.tobytes()),
        "infinity": wav(code=3, bits=32, data=infinite.tobytes()),
        "loud": wav(code=3, bits=32, data=loud.tobytes()),
        "2**36 frames": flac_that_claims(good, 2**36 - 1).read_bytes(),
        "unknown frames": flac_that_claims(good, 0).read_bytes(),
        "no channels": wav(channels=0),
        "65535 channels": wav(channels=65535, align=2),
        "no rate": wav(rate=0),
        "4 GHz": wav(rate=0xFFFFFFFF),
        "1 Hz": wav(rate=1),
        "no bits": wav(bits=0),
        "65535 bits": wav(bits=65535),
        "no alignment": wav(align=0),
        "4 GB of data": wav(size=0xFFFFFFF0),
        "a stream's WAV": wav(size=0xFFFFFFFF, riff=0xFFFFFFFF),
        "no samples": wav(data=b""),
        "half a sample": wav(data=b"x"),
        "an empty RIFF": b"RIFF\xff\xff\xff\xffWAVE" + b"junk\0\0\0\0" * 20_000,
        "a giant ID3": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(1000),
        "nested atoms": b"\0\0\0\x08moov" * 20_000,
        "a giant atom": b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42\0\0\0\x01moov" + b"\x7f" + b"\xff" * 7 + bytes(500),
        "Ogg pages of nothing": (b"OggS" + bytes(22) + b"\x00") * 5_000,
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(5_000),
        "pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    }
