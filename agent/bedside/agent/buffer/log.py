"""What SQLite's write-ahead log holds, read before SQLite does.

On recovery SQLite takes the log up to the first frame whose checksum does not hold, and drops the rest without a word.
After a power cut that rest is at most the one transaction that nobody was told of: every commit is synced before the
next one begins. More than one commit behind the break is therefore damage, and what was acknowledged is gone.

Source: sqlite.org/fileformat2.html, sections 4.1 to 4.3.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MAGICS: Final = frozenset({0x377F0682, 0x377F0683})
_MIN_PAGE_BYTES: Final = 512
_MAX_PAGE_BYTES: Final = 65_536


def committing_frames(log: Path) -> list[int]:
    """Numbers, from 1, of the frames that end a transaction in the log's present generation, sound or not.

    Empty where there is no log, or nothing in it. A log whose own header is damaged is read by its first frame.
    """
    try:
        with log.open("rb") as file:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return []
            magic, _, page_bytes, _, *salts, _, _ = _HEADER.unpack(header)
            if magic not in _MAGICS or not _is_page_size(page_bytes) or not _holds(header):
                page_bytes, salts = _page_bytes_of(log), []
            return _commits(file, page_bytes, tuple(salts))
    except OSError:
        return []


def _commits(file: BinaryIO, page_bytes: int, salts: tuple[int, ...]) -> list[int]:
    found: list[int] = []
    number = 0
    while len(frame := file.read(_FRAME.size)) == _FRAME.size:
        number += 1
        _, pages, *frame_salts, _, _ = _FRAME.unpack(frame)
        salts = salts or tuple(frame_salts)
        if pages and tuple(frame_salts) == salts:
            found.append(number)
        file.seek(page_bytes, 1)
    return found


def _holds(header: bytes) -> bool:
    """Whether the header's checksum is right; the magic number tells in which byte order it was computed."""
    order = ">" if header[3] & 1 else "<"
    words = struct.unpack(f"{order}6I", header[:24])
    first = second = 0
    for at in range(0, len(words), 2):
        first = (first + words[at] + second) & 0xFFFF_FFFF
        second = (second + words[at + 1] + first) & 0xFFFF_FFFF
    return (first, second) == struct.unpack(">2I", header[24:32])


def _page_bytes_of(log: Path) -> int:
    """The page size that the database itself states, or SQLite's default."""
    with log.with_name(log.name.removesuffix("-wal")).open("rb") as file:
        head = file.read(18)
    stated = int.from_bytes(head[16:18], "big")
    size = _MAX_PAGE_BYTES if stated == 1 else stated
    return size if _is_page_size(size) else 4_096


def _is_page_size(size: int) -> bool:
    return _MIN_PAGE_BYTES <= size <= _MAX_PAGE_BYTES and size & (size - 1) == 0
