"""Follows a file that another program appends to, as `tail -F` does, through rotation, truncation and a restart.

Invariants:
    * A place is recognised by device, inode, offset and a digest of the bytes before it: a file that was emptied and
      filled again, or another one under an old inode, is read from its beginning.
    * A file that was renamed is read to its end before the next one begins; after a restart it is searched for among
      the names that rotation gives (`vitals.csv.1`, `vitals.csv-20270101`).
    * What has no line end yet may still grow; it counts as a line where its file has ended.

Every call may wait for a disk or a network share: it runs in a thread.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from enum import Enum, auto
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bedside.core.errors import UnavailableError
from bedside.service.files import private_opener

CHUNK_BYTES: Final = 64 << 10
HEAD_BYTES: Final = 256 << 10
"""In which the lines before the rows must end."""

_BEFORE_BYTES: Final = 64
_QUIET_READS: Final = 3
"""A renamed file that has not grown for so many looks has ended: its writer may need a moment to let go of it."""


class FilePlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a file was read.

    Attributes:
        before: digest of the bytes before `offset`, hexadecimal.
    """

    device: int
    inode: int
    offset: int
    before: str


class What(Enum):
    """What a look at the file gave."""

    BEGUN = auto()
    """A file begins, or goes on after a restart: `head` has its first lines."""
    DATA = auto()
    ENDED = auto()
    """Nothing more will come of this file; the next look begins another one."""
    QUIET = auto()
    ABSENT = auto()


class Piece(NamedTuple):
    """What was read: bytes of DATA; first lines of BEGUN, and the offset at which rows go on."""

    what: What
    data: bytes = b""
    head: tuple[bytes, ...] = ()
    offset: int = 0


class Follower:
    """Reads one path.

    Attributes:
        lost: the file of `place` is nowhere: what was appended to it since then is not known.
    """

    def __init__(self, path: Path, place: FilePlace | None, head_lines: int) -> None:
        """Prepare.

        Args:
            path: of the file; it may not be there yet.
            place: where an earlier process stopped.
            head_lines: lines before the rows.
        """
        self._path = path
        self._place = place
        self._head_lines = head_lines
        self._descriptor: int | None = None
        self._begun = False
        self._offset = 0
        self._before = b""
        self._quiet = 0
        self.lost = False

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def read(self) -> Piece:
        """Look once.

        Raises:
            UnavailableError: `file-unreadable`.
        """
        try:
            if self._descriptor is None and not self._open():
                return Piece(What.ABSENT)
            if self._begun and not self._is_same():
                self._begun, self._offset = False, 0
            piece = self._data() if self._begun else self._begin()
            return piece if piece is not None else self._look_for_another()
        except OSError as error:
            raise UnavailableError(
                "file-unreadable",
                f"{self._path} cannot be read: {error.strerror or error}",
                remedy="check its permissions, and the share that it lies on",
            ) from error

    def place_at(self, offset: int) -> FilePlace | None:
        """The place at an offset that was read; None where the file has ended."""
        if self._descriptor is None or not self._begun:
            return None
        status = os.fstat(self._descriptor)
        return FilePlace(status.st_dev, status.st_ino, offset, _digest(self._descriptor, offset))

    def _open(self) -> bool:
        self._begun, self._offset, self._quiet = False, 0, 0
        if self._place is not None and self._find(self._place):
            return True
        self._descriptor = _opened(self._path)
        if self._descriptor is None:
            return False  # a share that is not there yet: the place may come back with it
        self.lost, self._place = self._place is not None, None
        return True

    def _find(self, place: FilePlace) -> bool:
        for path in (self._path, *self._rotated()):
            descriptor = _opened(path)
            if descriptor is not None and _is_at(descriptor, place):
                self._descriptor, self._offset, self._place = descriptor, place.offset, None
                return True
            if descriptor is not None:
                os.close(descriptor)
        return False

    def _begin(self) -> Piece | None:
        """The head of a file; None while it is not complete."""
        head = os.pread(self._file, HEAD_BYTES, 0)
        lines = head.split(b"\n", self._head_lines)
        if len(lines) <= self._head_lines:
            if len(head) == HEAD_BYTES:
                raise OSError(f"its first {HEAD_BYTES} bytes hold no header")
            return None
        self._begun = True
        self._offset = max(self._offset, len(head) - len(lines[-1]) if self._head_lines else 0)
        self._before = os.pread(self._file, min(_BEFORE_BYTES, self._offset), max(0, self._offset - _BEFORE_BYTES))
        return Piece(What.BEGUN, head=tuple(lines[: self._head_lines]), offset=self._offset)

    def _data(self) -> Piece | None:
        data = os.pread(self._file, CHUNK_BYTES, self._offset)
        if not data:
            return None
        self._offset += len(data)
        self._before = (self._before + data)[-_BEFORE_BYTES:]
        self._quiet = 0
        return Piece(What.DATA, data)

    def _is_same(self) -> bool:
        """Whether the bytes that were read last are still where they were."""
        return os.pread(self._file, len(self._before), self._offset - len(self._before)) == self._before

    def _look_for_another(self) -> Piece:
        """Nothing was read: is the file still the one at the path?"""
        mine = os.fstat(self._file)
        if _identity(self._path) in {None, (mine.st_dev, mine.st_ino)}:
            return Piece(What.QUIET)
        self._quiet += 1
        if self._quiet < _QUIET_READS:
            return Piece(What.QUIET)
        begun = self._begun
        self.close()
        self._descriptor = self._successor((mine.st_dev, mine.st_ino))
        self._begun, self._offset, self._quiet = False, 0, 0
        return Piece(What.ENDED if begun else What.QUIET)

    def _successor(self, ended: tuple[int, int]) -> int | None:
        """The file that follows the one that has ended: several may have been renamed meanwhile."""
        chain = [*self._rotated(), self._path]
        places = [_identity(path) for path in chain]
        first = places.index(ended) + 1 if ended in places else len(chain) - 1
        return _opened(chain[first])

    def _rotated(self) -> list[Path]:
        """Files with a name that rotation gives, the oldest first."""
        name = re.compile(re.escape(self._path.name) + r"[.-][0-9][0-9._-]*", re.ASCII)
        found: list[tuple[int, str]] = []
        try:
            with os.scandir(self._path.parent) as entries:
                found = [
                    (entry.stat().st_mtime_ns, entry.path)
                    for entry in entries
                    if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
                ]
        except FileNotFoundError:  # the folder, or a name that was just renamed
            return []
        return [Path(path) for _, path in sorted(found)]

    @property
    def _file(self) -> int:
        assert self._descriptor is not None  # noqa: S101 - `read` has opened it
        return self._descriptor


def _opened(path: Path) -> int | None:
    try:
        return private_opener(str(path), os.O_RDONLY)
    except FileNotFoundError:
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _is_at(descriptor: int, place: FilePlace) -> bool:
    status = os.fstat(descriptor)
    return (
        (status.st_dev, status.st_ino) == (place.device, place.inode)
        and status.st_size >= place.offset >= 0
        and _digest(descriptor, place.offset) == place.before
    )


def _digest(descriptor: int, offset: int) -> str:
    before = os.pread(descriptor, min(_BEFORE_BYTES, offset), max(0, offset - _BEFORE_BYTES))
    return hashlib.blake2b(before, digest_size=16).hexdigest()
