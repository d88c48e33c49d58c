"""Opening a buffer that a bad card has damaged: look first, set it aside, save what proves itself, go on.

`quick_check` *raises* on a malformed file, and SQLite's own recovery fails on healthy ones, so rows are read one by
one by id; a blob counts as saved only when its seal opens.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from bedside.agent.buffer.schema import ID_PER_SECOND, MIGRATIONS, second_of, stream_number_of
from bedside.agent.buffer.seal import Sealer
from bedside.core.errors import MalformedError, StoreError
from bedside.service.sqlite import Database, open_database

_DAMAGE_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SMALL_TABLES: Final = ("streams", "sessions", "labels", "predictions")
_MAX_ERRORS_IN_ROW: Final = 100_000
"""Failed reads after which the rest of a table counts as lost: a day of seconds, and a few seconds of work."""


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was saved from a damaged file.

    Attributes:
        renamed_to: where the damaged file lies.
        blobs: rows of signal saved.
        bad_blobs: rows of signal that could be read but did not open.
        other_rows: saved rows of the small tables.
        read_errors: reads that failed.
    """

    renamed_to: Path
    blobs: int
    bad_blobs: int
    other_rows: int
    read_errors: int

    def sentence(self) -> str:
        """For health and logs."""
        return (
            f"the buffer was damaged: {self.blobs} seconds of signal saved, {self.bad_blobs} unreadable, "
            f"the old file is {self.renamed_to.name}"
        )


def open_or_salvage(path: Path, sealer: Sealer) -> tuple[Database, Salvage | None]:
    """Open the buffer at `path`; when it is malformed, salvage it into a new file.

    Raises:
        StoreError: `store-open` or `store-newer` for reasons other than damage.
    """
    try:
        return _open_checked(path), None
    except StoreError as error:
        if not _is_damage(error):
            raise
    aside = _set_aside(path)
    database = open_database(path, MIGRATIONS, secure_delete=True)
    return database, _copy(aside, database, sealer)


def _open_checked(path: Path) -> Database:
    database = open_database(path, MIGRATIONS, secure_delete=True)
    try:
        answer = database.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        database.close()
        raise StoreError("store-open", f"{path} cannot be checked: {error}") from error
    if answer != "ok":
        database.close()
        raise StoreError("store-damaged", f"{path} is damaged: {answer}")
    return database


def _is_damage(error: StoreError) -> bool:
    if error.code == "store-damaged":
        return True
    cause = error.__cause__
    while isinstance(cause, StoreError):
        cause = cause.__cause__
    return isinstance(cause, sqlite3.Error) and (getattr(cause, "sqlite_errorcode", 0) & 0xFF) in _DAMAGE_CODES


def _set_aside(path: Path) -> Path:
    aside = next(
        candidate for number in count(1) if not (candidate := path.with_name(f"{path.name}.damaged-{number}")).exists()
    )
    for suffix in ("-wal", "-shm", ""):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(aside.with_name(aside.name + suffix))
    return aside


def _copy(aside: Path, database: Database, sealer: Sealer) -> Salvage:
    with closing(sqlite3.connect(aside, isolation_level=None)) as damaged:
        damaged.row_factory = sqlite3.Row
        reads = _Reads(damaged)
        other = sum(
            database.run_tx(f"salvage {table}", lambda tx, name=table: _copy_small(reads, tx, name))  # type: ignore[misc]  # the default binds the loop value
            for table in _SMALL_TABLES
        )
        names = {int(row["number"]): str(row["name"]) for row in database.connection.execute("SELECT * FROM streams")}
        good, bad = database.run_tx("salvage blobs", lambda tx: _copy_blobs(reads, tx, sealer, names))
        return Salvage(aside, good, bad, other, reads.errors)


def _copy_small(reads: _Reads, tx: sqlite3.Connection, table: str) -> int:
    kept = 0
    key = "number" if table in {"streams", "sessions"} else "id"
    for row in reads.by_key(table, key, 1):
        marks = ", ".join("?" * len(row))
        kept += tx.execute(
            f"INSERT OR IGNORE INTO {table} ({', '.join(row.keys())}) VALUES ({marks})", tuple(row)
        ).rowcount
    return kept


def _copy_blobs(reads: _Reads, tx: sqlite3.Connection, sealer: Sealer, names: dict[int, str]) -> tuple[int, int]:
    good = bad = 0
    for row in reads.by_key("blobs", "id", ID_PER_SECOND):
        blob_id = int(row["id"])
        name = names.get(stream_number_of(blob_id), "")
        try:
            sealer.open(row["sealed"], name, row["session"], second_of(blob_id))
        except (StoreError, MalformedError):
            bad += 1
            continue
        marks = ", ".join("?" * len(row))
        tx.execute(f"INSERT OR IGNORE INTO blobs ({', '.join(row.keys())}) VALUES ({marks})", tuple(row))
        good += 1
    return good, bad


class _Reads:
    """Point reads on a damaged file, in the order of an integer key, stepping over what cannot be read."""

    def __init__(self, damaged: sqlite3.Connection) -> None:
        self._damaged = damaged
        self.errors = 0

    def by_key(self, table: str, key: str, step: int) -> Iterator[sqlite3.Row]:
        """Yield every readable row; after a failure go on `step` later."""
        if not self._is_known(table):
            return
        last_key = self._end(table, key)
        after, failed = -1, 0
        while failed < _MAX_ERRORS_IN_ROW and (last_key is None or after < last_key):
            try:
                row = self._damaged.execute(
                    f"SELECT * FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT 1", (after,)
                ).fetchone()
            except sqlite3.Error:
                self.errors += 1
                failed += 1
                after = self._skip(table, key, after, step)
                continue
            if row is None:
                return
            failed, after = 0, int(row[key])
            yield row

    def _is_known(self, table: str) -> bool:
        """Whether the schema can be read: without it every row would fail, one by one."""
        try:
            self._damaged.execute(f"SELECT 1 FROM {table} LIMIT 0")
        except sqlite3.Error:
            self.errors += 1
            return False
        return True

    def _skip(self, table: str, key: str, after: int, step: int) -> int:
        """The next key to read behind: the key alone may be readable where its row is not."""
        try:
            row = self._damaged.execute(
                f"SELECT {key} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT 1", (after,)
            ).fetchone()
        except sqlite3.Error:
            return after - after % step + step
        return int(row[key]) if row is not None else after + step

    def _end(self, table: str, key: str) -> int | None:
        try:
            row = self._damaged.execute(f"SELECT max({key}) FROM {table}").fetchone()
        except sqlite3.Error:
            self.errors += 1
            return None
        return int(row[0]) if row[0] is not None else -1
