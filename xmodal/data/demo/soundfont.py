"""A General MIDI soundfont that the synthesiser plays in tune.

The synthesiser (symusic 0.5) takes a sample's pitch and loop from the sample's own header and ignores the zones of
an instrument that say otherwise (generators *overridingRootKey*, *startloopAddrsOffset* and
*endloopAddrsOffset*). With the soundfont of pretty_midi that puts the low piano three semitones and the high one
two octaves too high, and sends it into an endless loop on high notes of many instruments. So the soundfont is
rewritten: every zone gets a header of its own, which says what the zone says.

The format is that of the SoundFont Technical Specification 2.04 (Creative, 2006), sections 7 and 8.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_GENERATOR = np.dtype([("operator", "<u2"), ("amount", "<i2")])
_BAG = np.dtype([("generator", "<u2"), ("modulator", "<u2")])
_HEADER = np.dtype(
    [
        ("name", "S20"),
        ("start", "<u4"),
        ("end", "<u4"),
        ("loop_start", "<u4"),
        ("loop_end", "<u4"),
        ("rate", "<u4"),
        ("root_key", "u1"),
        ("cents", "i1"),
        ("link", "<u2"),
        ("type", "<u2"),
    ]
)
_LOOP_START_OFFSET, _LOOP_END_OFFSET, _SAMPLE, _ROOT_KEY = 2, 3, 53, 58


def soundfont_path() -> Path:
    """The General MIDI soundfont inside the package pretty_midi, found without importing it (which is slow).

    Raises:
        ModuleNotFoundError: If pretty_midi is not installed.
    """
    spec = importlib.util.find_spec("pretty_midi")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the demo corpus plays the soundfont of pretty_midi: pip install 'xmodal[demo]'")
    return Path(spec.origin).with_name("TimGM6mb.sf2")


def tuned(soundfont: bytes) -> bytes:
    """Give every zone of every instrument a sample header of its own, with the zone's root key and loop.

    Args:
        soundfont: A file of the format SoundFont 2 whose last chunk is the sample headers, as the format demands.

    Returns:
        The rewritten file.
    """
    chunks = dict(_chunks(soundfont, 0, len(soundfont)))
    headers = np.frombuffer(soundfont[chunks[b"shdr"]], dtype=_HEADER)
    bags = np.frombuffer(soundfont[chunks[b"ibag"]], dtype=_BAG)
    generators = np.frombuffer(soundfont[chunks[b"igen"]], dtype=_GENERATOR).copy()
    own: list[np.ndarray] = []
    for first, last in zip(bags["generator"][:-1], bags["generator"][1:], strict=True):
        zone = generators[first:last]  # a view: what is written here is written there
        amount = {int(generator["operator"]): int(generator["amount"]) for generator in zone}
        if _SAMPLE not in amount:
            continue  # a global zone
        header = headers[amount[_SAMPLE]].copy()
        if amount.get(_ROOT_KEY, -1) >= 0:
            header["root_key"] = amount[_ROOT_KEY]
        header["loop_start"] = int(header["loop_start"]) + amount.get(_LOOP_START_OFFSET, 0)
        header["loop_end"] = int(header["loop_end"]) + amount.get(_LOOP_END_OFFSET, 0)
        offsets = np.isin(zone["operator"], (_LOOP_START_OFFSET, _LOOP_END_OFFSET))
        zone["amount"][offsets] = 0
        zone["amount"][zone["operator"] == _SAMPLE] = len(own)
        own.append(header)
    new_headers = np.array([*own, headers[-1]], dtype=_HEADER).tobytes()  # the last one ends the list
    out = bytearray(soundfont[: chunks[b"shdr"].start])
    out[chunks[b"igen"]] = generators.tobytes()
    out[-4:] = struct.pack("<I", len(new_headers))
    out += new_headers
    for size_at in (4, soundfont.index(b"pdta") - 4):
        out[size_at : size_at + 4] = struct.pack("<I", len(out) - size_at - 4)
    return bytes(out)


def _chunks(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, slice]]:
    """Name and content of every chunk that is not a list, in the order of the file."""
    while start < end:
        name, size = struct.unpack_from("<4sI", data, start)
        if name in (b"RIFF", b"LIST"):
            yield from _chunks(data, start + 12, start + 8 + size)
        else:
            yield name, slice(start + 8, start + 8 + size)
        start += 8 + size + size % 2
