"""What a file's own bytes say about its end, before a decoder sees them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from xmodal.errors import AudioError

WHOLE_FILE = "re-encode it or get a complete copy"


def refuse_cut_short(path: str | Path, descriptor: int) -> None:
    """Refuse a WAV, an AIFF or an Ogg file whose end is missing by its own bytes.

    Args:
        path: Its name, for the message.
        descriptor: The open file; it is read without moving its position.

    Raises:
        AudioError: If it is cut short.
    """
    size = os.fstat(descriptor).st_size
    magic = os.pread(descriptor, 12, 0)
    if magic[8:] in (b"WAVE", b"AIFF", b"AIFC"):
        end = _data_chunk_end(descriptor, "<" if magic[:4] == b"RIFF" else ">")
        if end is not None and end > size:
            raise AudioError(path, f"is cut short: {end - size} bytes of its samples are missing; {WHOLE_FILE}")
    elif magic[:4] == b"OggS" and not _ends_with_last_ogg_page(descriptor, size):
        raise AudioError(path, f"is cut short: it does not end with a last Ogg page; {WHOLE_FILE}")


def _data_chunk_end(descriptor: int, byte_order: str) -> int | None:
    """Where the samples of a WAV or AIFF should end, or None where the file does not say."""
    position = 12
    for _ in range(1_000):  # a file of nothing but empty chunks must not be walked to its end
        header = os.pread(descriptor, 8, position)
        if len(header) < 8:
            break
        name, length = struct.unpack(f"{byte_order}4sI", header)
        if name in (b"data", b"SSND"):
            # A writer that cannot seek back leaves a placeholder of all or nearly all ones.
            return position + 8 + length if length < 0x7FFF_0000 else None
        position += 8 + length + length % 2
    return None


def _ends_with_last_ogg_page(descriptor: int, size: int) -> bool:
    largest_page = 27 + 255 + 255 * 255
    # Twice: a tag that another program appended may follow the last page.
    tail = os.pread(descriptor, 2 * largest_page, max(0, size - 2 * largest_page))
    page = tail[tail.rfind(b"OggS\0") :]
    if len(page) < 27 or not page[5] & 4:
        return False
    segments = page[26]
    return len(page) >= 27 + segments and len(page) >= 27 + segments + sum(page[27 : 27 + segments])


def mp3_declares_length(descriptor: int) -> bool:
    """Whether the first MPEG frame is a Xing or Info header with a frame count."""
    head = os.pread(descriptor, 10, 0)
    after_tag = 0
    if head[:3] == b"ID3" and len(head) == 10:
        length = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | (head[9] & 127)
        after_tag = 10 + length + (10 if head[5] & 16 else 0)
    first_frames = os.pread(descriptor, 4096, after_tag)
    for name in (b"Xing", b"Info"):
        place = first_frames.find(name)
        if place >= 0:
            flags = first_frames[place + 4 : place + 8]
            return len(flags) == 4 and bool(flags[3] & 1)
    return False
