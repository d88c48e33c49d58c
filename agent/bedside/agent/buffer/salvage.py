"""Saving what proves itself from a buffer that a bad card has damaged.

SQLite's own recovery fails on healthy files, so rows are read one by one by their keys. A row counts as saved only
when its tag holds and, where it is sealed, its seal opens.

Invariants:
    * The damaged file is only read. It gives way to the new one after that is complete.
    * What was lost is counted by table, in the new file's own counters.
    * A key that opens nothing is a wrong key, not damage: then nothing is changed.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Final

from bedside.agent.buffer.schema import ID_PER_SECOND, MIGRATIONS, second_of, stream_number_of
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.tags import TAG, TAGGED, any_text, is_sound, is_tagged, key_columns
from bedside.core.errors import ConfigError, MalformedError, StoreError
from bedside.service.sqlite import Database

MAX_SET_ASIDE: Final = 2
"""Damaged files that are kept for whoever wants to look; a bad card must not fill itself with them."""

SEALED: Final = ("blobs", "records", "windows", "summaries", "explanations")
"""Tables whose content is sealed."""

_KEYS: Final = {
    "seal_keys": "key_id",
    "streams": "number",
    "sessions": "number",
    "explanations": "prediction",
    "counters": "",
    "deliveries": "",
}
"""Integer keys by which rows are read, where that is not `id`; tables without one are read from both ends."""

_PLACED: Final = ("blobs", "records", "summaries")
"""Tables whose key is a time, a stream and a part."""

_CREATED: Final = re.compile(r"CREATE TABLE (\w+)")
_UNREADABLE: Final = (sqlite3.Error, UnicodeDecodeError)
_HEADER_BYTES: Final = 100
_BATCH_ROWS: Final = 256
_MAX_ERRORS_IN_ROW: Final = 100_000
"""Failed reads after which the rest of a table counts as lost: a day of seconds, and a few seconds of work."""


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was saved from a damaged file.

    Attributes:
        renamed_to: where the damaged file lies; None where only the end of its log was damaged.
        saved: rows by table.
        lost: rows that were read and did not hold, and reads that failed, by table: at least so much is gone.
        lost_commits: transactions at the end of the log that had been acknowledged and do not hold.
        unknown: tables of which more may be lost than can be known: runs of unreadable rows count as one.
        begun_anew: whether there was a buffer, and nothing of it is left to read.
    """

    renamed_to: Path | None
    saved: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    lost_commits: int = 0
    unknown: frozenset[str] = frozenset()
    begun_anew: bool = False

    @property
    def blobs(self) -> int:
        """Rows of signal saved."""
        return self.saved.get("blobs", 0)

    def sentence(self) -> str:
        """For health and logs."""
        if self.begun_anew:
            old = (
                "its file was gone or empty" if self.renamed_to is None else f"nothing of {self.renamed_to.name} holds"
            )
            return f"the buffer was lost: {old}, and a new one was begun; if that was meant, it is well after a restart"
        lost = [f"{number} {table}" for table, number in self.lost.items() if table not in self.unknown]
        lost += [f"an unknown number of {table}" for table in sorted(self.unknown)]
        lost += [f"{self.lost_commits} seconds at the end of the log"] if self.lost_commits else []
        told = f"the buffer was damaged: {', '.join(lost) or 'nothing'} lost"
        if self.renamed_to is None:
            return told
        return f"{told}, {self.blobs} seconds of signal saved, the old file is {self.renamed_to.name}"


def set_aside_files(path: Path) -> list[Path]:
    """Damaged databases beside the buffer at `path`, oldest first."""
    found = [one for one in path.parent.glob(f"{path.name}.damaged-*") if one.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda one: int(one.name.rpartition("-")[2]))


def discard_set_aside(path: Path, keep: int = 0) -> None:
    """Delete damaged files beside the buffer at `path`, oldest first, until `keep` are left.

    Erasing a session needs it: a damaged file still holds that session's rows.
    """
    found = set_aside_files(path)
    for one in found[: len(found) - keep]:
        for suffix in ("-wal", "-shm", ""):
            one.with_name(one.name + suffix).unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename the damaged file with its log, keep few of its kind, and return its new name."""
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in count(_next_number(path)))
    aside = next(names)
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    discard_set_aside(path, MAX_SET_ASIDE)
    return aside


def copy_sound_rows(
    damaged_path: Path, database: Database, sealer: Sealer
) -> tuple[Counter[str], Counter[str], frozenset[str]]:
    """Copy every row that proves itself; return how many were saved, and lost, by table, and where it may be more.

    Raises:
        ConfigError: `buffer-key-wrong` when there are sealed rows and no key is theirs.
        StoreError: `store-write` when the new file cannot take them.
    """
    saved: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    unknown: set[str] = set()
    with closing(sqlite3.connect(damaged_path, isolation_level=None)) as damaged:
        damaged.row_factory = sqlite3.Row
        damaged.text_factory = any_text
        made = {table for table in TAGGED if _is_cut(damaged_path)} or _tables_made(damaged)
        _mend_schema(damaged, database.connection)
        proof = _Proof(sealer, _is_tagged(damaged))
        for table in TAGGED:
            reads = _Reads(damaged, table, was_made=table in made)
            rows_left = reads.rows()
            while rows := list(islice(rows_left, _BATCH_ROWS)):
                sound = [row for row in rows if proof.holds(table, row)]
                saved[table] += database.run_tx(f"salvage {table}", lambda tx, t=table, s=sound: _insert(tx, t, s))  # type: ignore[misc]  # the defaults bind the loop's values
                lost[table] += len(rows) - len(sound)
            lost[table] += reads.errors
            if reads.unknown:
                unknown.add(table)
        proof.check_key(damaged_path)
        _copy_numbering(damaged, database)
    return +saved, +lost, frozenset(unknown)


def _is_cut(path: Path) -> bool:
    """Whether a file is shorter than its own header says."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    page_bytes = int.from_bytes(head[16:18], "big")
    page_bytes = 65_536 if page_bytes == 1 else page_bytes
    return len(head) < _HEADER_BYTES or path.stat().st_size < page_bytes * int.from_bytes(head[28:32], "big")


def _tables_made(damaged: sqlite3.Connection) -> set[str]:
    """Tables that a file had, by its own note of migrations; all of them where that is damaged as well."""
    names: set[str] = set()
    with suppress(*_UNREADABLE):
        names = {str(row[0]) for row in damaged.execute("SELECT name FROM migrations")}
    known = [at for at, migration in enumerate(MIGRATIONS) if migration.name in names]
    scripts = MIGRATIONS[: max(known) + 1] if known else MIGRATIONS
    return {table for migration in scripts for table in _CREATED.findall(migration.script)}


def _copy_numbering(damaged: sqlite3.Connection, database: Database) -> None:
    """Numbers of rows that are gone are not used again."""
    with suppress(sqlite3.Error):
        for name, last in damaged.execute("SELECT name, seq FROM sqlite_sequence").fetchall():
            if name in TAGGED and isinstance(last, int):
                database.run_tx("numbering", partial(_number_after, table=name, last=last))


def _number_after(tx: sqlite3.Connection, table: str, last: int) -> None:
    known = tx.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()[0] or 0
    tx.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
    tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, max(known, last)))


def _next_number(path: Path) -> int:
    found = set_aside_files(path)
    return int(found[-1].name.rpartition("-")[2]) + 1 if found else 1


def _mend_schema(damaged: sqlite3.Connection, sound: sqlite3.Connection) -> None:
    """Have this connection read the tables as they were made, whatever became of the schema's text in the file.

    It is replaced within a transaction that is never committed. Pages and rows are where the file says.
    """
    right = [tuple(row) for row in sound.execute("SELECT type, name, tbl_name, sql, rowid FROM sqlite_master")]
    with suppress(*_UNREADABLE):
        damaged.execute("PRAGMA writable_schema=ON")
        if damaged.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == len(right):
            damaged.execute("BEGIN")
            damaged.executemany(
                "UPDATE sqlite_master SET type = ?, name = ?, tbl_name = ?, sql = ? WHERE rowid = ?", right
            )
        damaged.execute("PRAGMA writable_schema=RESET")


def _is_tagged(damaged: sqlite3.Connection) -> bool:
    with suppress(sqlite3.Error):
        return is_tagged(damaged)
    return True


def _insert(tx: sqlite3.Connection, table: str, rows: Iterable[sqlite3.Row]) -> int:
    inserted = 0
    for row in rows:
        names = [name for name in row.keys() if name != TAG]  # noqa: SIM118
        marks = ", ".join("?" * len(names))
        inserted += tx.execute(
            f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({marks})", [row[name] for name in names]
        ).rowcount
    return inserted


class _Proof:
    """Whether a row is as it was written."""

    def __init__(self, sealer: Sealer, tagged: bool) -> None:
        self._sealer = sealer
        self._tagged = tagged
        self._streams: dict[int, str] = {}
        self._sealed = self._opened = 0

    def holds(self, table: str, row: sqlite3.Row) -> bool:
        """Judge one row; streams come before blobs, whose place names them."""
        if self._tagged and not is_sound(row):
            return False
        if table == "streams":
            self._streams[int(row["number"])] = str(row["name"])
        return table not in SEALED or self._opens(table, row)

    def check_key(self, path: Path) -> None:
        """Raises ConfigError `buffer-key-wrong` when rows were sealed, and none by one of our keys."""
        if self._sealed and not self._opened:
            raise wrong_key(path)

    def _opens(self, table: str, row: sqlite3.Row) -> bool:
        ours = row["key_id"] in self._sealer.ring.ids if "key_id" in row.keys() else False  # noqa: SIM118
        self._sealed += 1
        try:
            if table == "blobs":
                name = self._streams.get(stream_number_of(row["id"]), "")
                self._sealer.open(row["sealed"], name, row["session"], second_of(row["id"]))
            elif not self._sealer.opens(row["sealed"]):
                self._opened += ours
                return False
        except (StoreError, MalformedError) as error:
            self._opened += ours or error.code != "blob-sealed"
            return False
        self._opened += 1
        return True


def wrong_key(path: Path) -> ConfigError:
    """The error of a buffer that was sealed with a key that is not here."""
    return ConfigError(
        "buffer-key-wrong",
        f"{path.name} holds rows that were sealed with a key which is not here; nothing was changed",
        remedy="restore identity/buffer.key or the credentials bedside-buffer-key and bedside-buffer-key-old;"
        f" if the key is lost for good, move {path} away to begin anew",
    )


class _Reads:
    """Every row of one table of a damaged file that can be read, stepping over what cannot.

    Attributes:
        errors: rows that could not be read, and runs of such rows.
        unknown: whether there was such a run: how many rows it had cannot be known.
    """

    def __init__(self, damaged: sqlite3.Connection, table: str, *, was_made: bool) -> None:
        self._damaged = damaged
        self._table = table
        self._key = _KEYS.get(table, "id")
        self._step = ID_PER_SECOND if table in _PLACED else 1
        self._was_made = was_made
        self.errors = 0
        self.unknown = False

    def rows(self) -> Iterator[sqlite3.Row]:
        """Yield them in the order of their keys; a table without a key from both ends, some rows twice."""
        if not self._is_known():
            return
        yield from self._by_key() if self._key else self._from_both_ends()

    def _by_key(self) -> Iterator[sqlite3.Row]:
        last_key = self._end()
        after, failed, in_run = -1, 0, False
        while failed < _MAX_ERRORS_IN_ROW and (last_key is None or after < last_key):
            try:
                row = self._next("*", after)
            except _UNREADABLE:
                failed += 1
                key = self._next_key(after)
                self.errors += key is not None or not in_run
                in_run = key is None
                self.unknown |= in_run
                after = after - after % self._step + self._step if key is None else key
                continue
            if row is None:
                return
            if not isinstance(row[self._key], int) or row[self._key] <= after:  # the order itself is damaged
                self._fail()
                return
            failed, in_run, after = 0, False, row[self._key]
            yield row

    def _from_both_ends(self) -> Iterator[sqlite3.Row]:
        for direction in ("ASC", "DESC"):
            ordered = ", ".join(f"{name} {direction}" for name in key_columns(self._table))
            try:
                yield from self._damaged.execute(f"SELECT * FROM {self._table} ORDER BY {ordered}")
            except _UNREADABLE:
                self._fail()
            else:
                return

    def _next(self, what: str, after: int) -> sqlite3.Row | None:
        sql = f"SELECT {what} FROM {self._table} WHERE {self._key} > ? ORDER BY {self._key} LIMIT 1"
        found: sqlite3.Row | None = self._damaged.execute(sql, (after,)).fetchone()
        return found

    def _is_known(self) -> bool:
        """Whether the schema can be read: without it every row would fail, one by one."""
        try:
            self._damaged.execute(f"SELECT * FROM {self._table} LIMIT 0")
        except _UNREADABLE as error:
            if self._was_made or "no such table" not in str(error):  # a file of an older version has fewer tables
                self._fail()
            return False
        return True

    def _fail(self) -> None:
        self.errors += 1
        self.unknown = True

    def _next_key(self, after: int) -> int | None:
        """The next key to read behind: the key alone may be readable where its row is not; None where it is not."""
        try:
            row = self._next(self._key, after)
        except _UNREADABLE:
            return None
        return int(row[0]) if row is not None and isinstance(row[0], int) and row[0] > after else after + self._step

    def _end(self) -> int | None:
        try:
            row = self._damaged.execute(f"SELECT max({self._key}) FROM {self._table}").fetchone()
        except sqlite3.Error:
            self.unknown = True
            return None
        return int(row[0]) if row[0] is not None else -1
