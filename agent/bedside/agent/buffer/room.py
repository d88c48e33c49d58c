"""Transactions on a disk that may be full: the oldest rows give up their pages to the new ones.

A full disk cannot take a longer file, but pages inside it can be used again. So a transaction that found no space is
tried once more after the log was written back and a few of the oldest rows went, and until space returns the buffer
has a smaller cap. Labels, alarms and sessions stay, as with the cap.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from typing import Final, TypeVar

from bedside.agent.buffer.erasure import checkpoint
from bedside.agent.buffer.eviction import Evictor, used_bytes
from bedside.agent.buffer.places import RawPlaces
from bedside.core.errors import StoreError
from bedside.service.sqlite import Database

Result = TypeVar("Result")

_STEP_BYTES: Final = 64 << 10
"""Given up at a time: it passes through the log, for which there must be space too."""
_SPARE_BYTES: Final = 256 << 10
"""Free pages inside the file beyond which no more is given up: then it is the log that finds no space."""


class Room:
    """Runs the writer's transactions."""

    def __init__(self, database: Database, evictor: Evictor, places: RawPlaces, log_bytes: int) -> None:
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

    def run(self, name: str, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run a transaction, on a full disk after having made room.

        Raises:
            StoreError: `store-write`; nothing was written.
        """
        try:
            result = self._attempt(name, work)
        except StoreError as error:
            if not _is_full(error):
                raise
            self._give_up_some()
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
        checkpoint(self._database)
        connection = self._database.connection
        used = used_bytes(connection)
        free = int(connection.execute("PRAGMA freelist_count").fetchone()[0]) * 4_096
        self._evictor.limit_bytes = min(self._evictor.limit_bytes, used - (_STEP_BYTES if free < _SPARE_BYTES else 0))
        self._attempt("make room", self._evictor.make_room)
        checkpoint(self._database)

    def _grow_back(self) -> None:
        """Half of what the disk can spare is for the file, the rest for the log and others."""
        spare = shutil.disk_usage(self._database.path.parent).free - self._log_bytes
        used = used_bytes(self._database.connection)
        limit = max(self._evictor.limit_bytes, used + spare // 2)
        self._evictor.limit_bytes = min(self._evictor.cap_bytes, limit)


def _is_full(error: StoreError) -> bool:
    return getattr(error.__cause__, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
