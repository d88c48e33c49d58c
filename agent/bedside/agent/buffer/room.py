"""Transactions on a disk that may be full: the oldest rows give up their pages to the new ones.

A full disk cannot take a longer file, but pages inside it can be used again. So every transaction of the buffer that
found no space, a label's or a session's too, is tried once more after the log was written back and a few of the oldest
rows went, and until space returns the buffer has a smaller cap. Labels, alarms and sessions stay, as with the cap.
Writing the log back may itself make the file longer, and a deletion passes through the log: a reserve of empty blocks
on the disk is given up for that.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from bedside.agent.buffer.erasure import checkpoint
from bedside.agent.buffer.eviction import Evictor, used_bytes
from bedside.agent.buffer.opening import BufferDatabase, is_full
from bedside.agent.buffer.places import RawPlaces
from bedside.core.errors import StoreError

Result = TypeVar("Result")

_STEPS_BYTES: Final = (64 << 10, 16 << 10, 8 << 10)
"""Given up at a time."""
_RESERVE_BYTES: Final = 64 << 10
"""Beside a whole log."""
_MIN_LOG_BYTES: Final = 32 << 10
_SPARE_BYTES: Final = 256 << 10
"""Free pages inside the file beyond which no more is given up: then it is the log that finds no space."""


def log_bytes_for(path: Path, wanted_bytes: int) -> int:
    """How long the log may be beside a database at `path`: as wanted, but little of what the disk has left."""
    return max(_MIN_LOG_BYTES, min(wanted_bytes, shutil.disk_usage(path.parent).free // 16))


class Reserve:
    """A file of nothing beside the database, which gives its space up when the disk is full."""

    def __init__(self, database_path: Path, size_bytes: int) -> None:
        self._path = database_path.with_name(f"{database_path.name}.reserve")
        self._size_bytes = size_bytes

    def take(self) -> None:
        """Allocate it, where the disk has several times as much left."""
        with suppress(OSError):
            if self._path.exists() or shutil.disk_usage(self._path.parent).free < 4 * self._size_bytes:
                return
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size_bytes)

    def give(self) -> None:
        """Give the space back to the disk."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


class Room:
    """Runs the writer's transactions."""

    def __init__(self, database: BufferDatabase, evictor: Evictor, places: RawPlaces, log_bytes: int) -> None:
        """Prepare.

        Args:
            database: of the buffer.
            evictor: which keeps it under its cap.
            places: of its raw rows.
            log_bytes: that the log takes on the disk.
        """
        self._database = database
        self._evictor = evictor
        self._places = places
        self._log_bytes = log_bytes
        self._reserve = Reserve(database.path, log_bytes + _RESERVE_BYTES)
        self._reserve.take()
        database.on_full = self._give_up_some

    def run(self, name: str, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run a transaction, on a full disk after having made room.

        Raises:
            StoreError: `store-write`; nothing was written.
        """
        with self._database.turn:
            result = self._attempt(name, work)
            if self._evictor.squeezed:
                self._grow_back()
            return result

    def _attempt(self, name: str, work: Callable[[sqlite3.Connection], Result]) -> Result:
        committed = False
        try:
            result = self._database.run_tx(name, work)
            committed = True
        finally:
            self._places.settle(committed=committed)
        return result

    def _give_up_some(self) -> None:
        """Smaller and smaller steps: what goes passes through the log, and that may find little space itself."""
        self._places.settle(committed=False)  # of the transaction that found no space
        self._reserve.give()
        for step_bytes in _STEPS_BYTES:
            try:
                self._give_up(step_bytes)
            except StoreError as error:
                if not is_full(error) or step_bytes == _STEPS_BYTES[-1]:
                    raise
            else:
                return

    def _give_up(self, step_bytes: int) -> None:
        checkpoint(self._database)
        connection = self._database.connection
        used = used_bytes(connection)
        free = int(connection.execute("PRAGMA freelist_count").fetchone()[0]) * 4_096
        self._evictor.limit_bytes = min(self._evictor.limit_bytes, used - (step_bytes if free < _SPARE_BYTES else 0))
        self._attempt("make room", self._evictor.make_room)
        checkpoint(self._database)

    def _grow_back(self) -> None:
        """Half of what the disk can spare is for the file, the rest for the log and others."""
        spare = shutil.disk_usage(self._database.path.parent).free - self._log_bytes
        used = used_bytes(self._database.connection)
        if spare > _SPARE_BYTES:
            self._reserve.take()
        limit = max(self._evictor.limit_bytes, used + spare // 2)
        self._evictor.limit_bytes = min(self._evictor.cap_bytes, limit)
