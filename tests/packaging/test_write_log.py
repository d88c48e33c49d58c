"""What a power cut leaves of a disk: what was written before the last flush."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from write_log import replay

SECTOR = 512
FLUSH = (0, b"", 1)
A, B, C = (bytes([letter]) * SECTOR for letter in b"ABC")


def write_log(path: Path, *entries: tuple[int, bytes, int], noted: int | None = None) -> None:
    """Entries of a sector, what was written there, and flags, behind a head that counts some of them, else all."""
    with path.open("wb") as file:
        file.truncate(1 << 20)
        count = len(entries) if noted is None else noted
        file.write(struct.pack("<QQQI", 0x6A736677736872, 1, count, SECTOR).ljust(SECTOR, b"\0"))
        for sector, data, flags in entries:
            file.write(struct.pack("<QQQQ", sector, len(data) // SECTOR, flags, 0).ljust(SECTOR, b"\0") + data)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "disk").write_bytes(bytes(4 * SECTOR))
    return tmp_path / "log"


def test_what_was_written_after_the_last_flush_is_lost(log: Path) -> None:
    write_log(log, (1, A, 0), (0, B + B, 0), FLUSH, (3, C, 0), noted=3)
    assert replay(log, log.with_name("disk")) == 1
    assert log.with_name("disk").read_bytes() == B + B + bytes(2 * SECTOR)


def test_without_a_flush_all_is_lost(log: Path) -> None:
    write_log(log, (1, A, 0), (2, B, 0), noted=0)
    assert replay(log, log.with_name("disk")) == 2
    assert log.with_name("disk").read_bytes() == bytes(4 * SECTOR)


def test_a_log_that_ends_before_its_own_count_is_no_answer(log: Path) -> None:
    write_log(log, (1, A, 0), FLUSH, noted=3)
    with pytest.raises(AssertionError, match="midst"):
        replay(log, log.with_name("disk"))
