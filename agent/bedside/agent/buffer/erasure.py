"""Erasing one session from the buffer's files, and making sure that it is gone.

Deleting is not enough, even with `secure_delete`: where SQLite moves a row to another page, its old image may stay in
the gap between the page's row pointers and its rows (a few rows in ten thousand), and the log holds pages as
they were. So, after the rows are deleted: the log is written back and cut to nothing, which fails while somebody still
reads an old state; the gaps of all pages are overwritten with zeros; the file is searched for the session's name,
which every row bears. A mark in the file's header (a bit of `user_version`) stands from the first step to the last, so
that whatever interrupts this, the next start ends it.

The gaps are written past SQLite, which never reads them: by its only writer, while the log is empty, with its cache
dropped before. The file is opened once and kept open, because closing it would drop this process's POSIX locks.

Source: sqlite.org/fileformat2.html, section 1.6.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from bedside.agent.buffer.places import RawPlaces
from bedside.agent.buffer.salvage import discard_set_aside
from bedside.agent.buffer.schema import OF_A_SESSION, RAW_TABLES
from bedside.agent.buffer.turn import Turn
from bedside.core.errors import StoreError
from bedside.service.sqlite import Database

ERASE_WAIT_MS: Final = 1_000
"""How long an erasure waits for readers; a flush that ends it does not wait."""
_ERASING: Final = 2
"""Bit of `PRAGMA user_version`."""
_SLICE_PAGES: Final = 256
_HEADER_BYTES: Final = {2: 12, 5: 12, 10: 8, 13: 8}
"""By the type of a b-tree page. Other pages begin with a page number, whose first byte is 0 below 16 million pages."""
_FILE_HEADER_BYTES: Final = 100


def erase(tx: sqlite3.Connection, places: RawPlaces, session: str, last_number: int) -> dict[str, int]:
    """Delete every row of a session; returns rows by table.

    Args:
        tx: the transaction.
        places: of raw rows.
        session: whose rows.
        last_number: of the predictions that were told, stored or not: it is not given again.
    """
    rows = dict.fromkeys(OF_A_SESSION, 0)
    found = tx.execute(
        "SELECT streams.number AS stream, opened_ns, closed_ns FROM sessions JOIN streams ON name = stream"
        " WHERE session = ?",
        (session,),
    ).fetchone()
    if found is not None:
        for low, high in places.ranges(found["stream"], found["opened_ns"], found["closed_ns"]):
            for table in RAW_TABLES:
                rows[table] += tx.execute(
                    f"DELETE FROM {table} WHERE id BETWEEN ? AND ? AND session = ?", (low, high, session)
                ).rowcount
    for table in OF_A_SESSION:
        if table not in RAW_TABLES:
            rows[table] += tx.execute(f"DELETE FROM {table} WHERE session = ?", (session,)).rowcount
    tx.execute("DELETE FROM sqlite_sequence WHERE name = 'predictions'")
    tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('predictions', ?)", (last_number,))
    mark_erasure(tx)
    return rows


def mark_erasure(tx: sqlite3.Connection) -> None:
    """Note, in a transaction, that what it deletes must be overwritten: by a `Scrubber`, at the next start at last."""
    tx.execute(f"PRAGMA user_version = {_version(tx) | _ERASING}")


def checkpoint(database: Database, wait_ms: int = 0) -> bool:
    """Write the log back and cut it to nothing; False while a reader needs it."""
    connection = database.connection
    before = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute(f"PRAGMA busy_timeout = {wait_ms}")
    try:
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError:
        return False  # locked, or no space to write back
    finally:
        connection.execute(f"PRAGMA busy_timeout = {before}")
    log = database.path.with_name(database.path.name + "-wal")
    return not busy and (not log.exists() or log.stat().st_size == 0)


def erase_pending() -> StoreError:
    """Rows are deleted, and their pages cannot be overwritten yet."""
    return StoreError(
        "erase-pending",
        "the session's rows are gone, but another reader still keeps their pages in use",
        remedy="end the program that reads the buffer, then forget the session once more",
    )


class Scrubber:
    """Removes what deleted rows left behind in one buffer's files.

    Attributes:
        pending: whether an erasure is not finished; whoever has marked one in the file (`erase`) says so here.
        taken: whether somebody takes its steps, so that others need not end it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file: int | None = None
        self.taken = False
        self.pending = bool(_version(database.connection) & _ERASING)

    def finish(self, session: str = "", wait_ms: int = 0) -> bool:
        """End a pending erasure at once; False while a reader keeps old pages in use. Hold the database's turn.

        Raises:
            StoreError: `erase-incomplete` when the session's name is still found.
        """
        return all(self.steps(session, wait_ms))

    @contextmanager
    def beside(self, turn: Turn, session: str) -> Iterator[Callable[[], bool | None]]:
        """Give what takes one step, in any thread, while others write; see `steps`. It returns None when all is done.

        One at a time.
        """
        steps = self.steps(session)

        def step() -> bool | None:
            with turn:
                return next(steps, None)

        self.taken = True
        try:
            yield step
        finally:
            self.taken = False

    def steps(self, session: str = "", wait_ms: int = 0) -> Iterator[bool]:
        """End a pending erasure a piece of the file at a time; yields False while a reader keeps old pages in use.

        Hold the database's turn for each step; others may write in between. What they write of a piece that is done
        they have read after it was: the cache is dropped, and the log empty, before a piece is filled.

        Raises:
            StoreError: `erase-incomplete` when the session's name is still found.
        """
        needle, at, found = session.encode(), 0, False
        while True:
            while not checkpoint(self._database, wait_ms):
                yield False
            self._database.connection.execute("PRAGMA shrink_memory")  # its cache holds the gaps as they were
            file = self._open()
            filled_bytes = self._fill_gaps(file, at)
            if not filled_bytes:
                break
            overlap = min(at, len(needle))
            found = found or (bool(needle) and needle in os.pread(file, filled_bytes + overlap, at - overlap))
            at += filled_bytes
            yield True
        os.fsync(file)
        discard_set_aside(self._database.path)
        if found:
            raise StoreError(
                "erase-incomplete",
                "traces of the session are still in the buffer's file",
                remedy="stop the agent and forget the session again; report this",
            )
        self._database.run_tx("erased", lambda tx: tx.execute(f"PRAGMA user_version = {_version(tx) & ~_ERASING}"))
        self.pending = False

    def close(self) -> None:
        """Close the file, after the database is closed."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _fill_gaps(self, file: int, at: int) -> int:
        """Overwrite the gaps of the pages of one slice; returns its bytes."""
        page_bytes = int(self._database.connection.execute("PRAGMA page_size").fetchone()[0])
        data = os.pread(file, page_bytes * _SLICE_PAGES, at)
        for page in range(0, len(data) - page_bytes + 1, page_bytes):
            start, end = _gap(data, page, _FILE_HEADER_BYTES if at + page == 0 else 0, page_bytes)
            if data.count(0, start, end) < end - start:
                os.pwrite(file, bytes(end - start), at + start)
        return len(data)

    def _open(self) -> int:
        if self._file is None:
            self._file = os.open(self._database.path, os.O_RDWR | os.O_CLOEXEC)
        return self._file


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _gap(data: bytes, page: int, skip: int, page_bytes: int) -> tuple[int, int]:
    """Where the unused bytes between row pointers and rows begin and end; empty on other pages."""
    head = page + skip
    header_bytes = _HEADER_BYTES.get(data[head])
    if header_bytes is None:
        return page, page
    cells = int.from_bytes(data[head + 3 : head + 5], "big")
    content = int.from_bytes(data[head + 5 : head + 7], "big") or 65_536
    start, end = head + header_bytes + 2 * cells, page + content
    return (start, end) if start <= end <= page + page_bytes else (page, page)
