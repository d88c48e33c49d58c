"""A log of what was written to a disk and when it was flushed, by QEMU's blklogwrites in dm-log-writes' format.

Source: Documentation/admin-guide/device-mapper/log-writes.rst of Linux; block/blklogwrites.c of QEMU.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

_SUPER: Final = struct.Struct("<QQQI")
_ENTRY: Final = struct.Struct("<QQQ")
_MAGIC: Final = 0x6A736677736872
_FLUSH: Final = 1


def replay(log: Path, disk: Path) -> int:
    """Do to a disk what its log has up to the last flush; how many writes came after that."""
    with log.open("rb") as source, disk.open("r+b") as target:
        magic, _, noted, sector_bytes = _SUPER.unpack(source.read(_SUPER.size))
        assert magic == _MAGIC
        entries = list(_entries(source, sector_bytes))
        assert len(entries) >= noted, "the cut came in the midst of an entry of the log"
        flushed = max((number for number, (_, _, flags, _) in enumerate(entries) if flags & _FLUSH), default=0)
        for sector, count, _, place in entries[:flushed]:
            source.seek(place)
            target.seek(sector * sector_bytes)
            target.write(source.read(count * sector_bytes))
        return sum(count > 0 for _, count, _, _ in entries[flushed:])


def _entries(source: BinaryIO, sector_bytes: int) -> Iterator[tuple[int, int, int, int]]:
    """First sector, how many, flags, and where the data is, up to what was never written."""
    at = sector_bytes
    while True:
        source.seek(at)
        sector, count, flags = _ENTRY.unpack(source.read(_ENTRY.size))
        if not count and not flags:
            return
        yield sector, count, flags, at + sector_bytes
        at += (1 + count) * sector_bytes
