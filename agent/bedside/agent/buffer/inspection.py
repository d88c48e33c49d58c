"""Looking at a buffer's file without changing it: what is in it, and whether all of it holds.

Beside a running agent this reads through a connection of its own, a page of rows at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bedside.agent.buffer.derived import open_explanation, open_summary, open_window
from bedside.agent.buffer.records import decode_record, record_place
from bedside.agent.buffer.salvage import SEALED, set_aside_files
from bedside.agent.buffer.schema import (
    MIGRATIONS,
    OF_A_SESSION,
    PART_BITS,
    SALVAGE,
    STREAM_BITS,
    second_of,
    stream_number_of,
)
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.tags import TAGGED, any_text, is_sound, key_columns, right_shape, shape_of
from bedside.core.errors import MalformedError, StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.ondevice.windows.part import NS_PER_S
from bedside.service.sqlite import open_reader, reading

_PAGE_ROWS: Final = 256
_SESSIONLESS: Final = frozenset({"counters", "sessions"})
"""Counters outlive their session, without its name."""

Advance = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not hold in so many rows of a table; `example` is the key of the first of them."""

    code: str
    table: str
    rows: int
    example: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found: rows looked at by table, and what does not hold."""

    rows: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def describe(path: Path) -> dict[str, object]:
    """Sizes, rows, times and counters of the buffer at `path`.

    Raises:
        StoreError: `store-open`, `store-read`.
    """
    from sqlite_utils import Database as Tables

    with closing(open_reader(path, remedy=SALVAGE)) as connection, reading(path, remedy=SALVAGE):
        tables = Tables(connection)
        pragmas = {name: int(next(connection.execute(f"PRAGMA {name}"))[0]) for name in _PRAGMAS}
        return {
            "file": str(path),
            "file_bytes": path.stat().st_size,
            "log_bytes": _size(path.with_name(f"{path.name}-wal")),
            "free_bytes": pragmas["freelist_count"] * pragmas["page_size"],
            "tables": [
                {"table": name, "rows": tables[name].count, "sealed_bytes": _sealed_bytes(connection, name)}
                for name in TAGGED
            ],
            "streams": _streams(connection),
            "counters": [
                {"stream": row["stream"], "counter": row["name"], "value": row["total"]}
                for row in connection.execute(
                    "SELECT stream, name, sum(value) AS total FROM counters GROUP BY stream, name ORDER BY stream, name"
                )
            ],
            "key_ids": [f"{row[0]:08x}" for row in connection.execute("SELECT key_id FROM seal_keys ORDER BY key_id")],
            "set_aside": [{"file": one.name, "bytes": one.stat().st_size} for one in set_aside_files(path)],
        }


def count_rows(path: Path) -> int:
    """Rows of all tables, for a progress bar; 0 where they cannot be counted."""
    try:
        with closing(open_reader(path, remedy=SALVAGE)) as connection:
            return sum(int(next(connection.execute(f"SELECT count(*) FROM {table}"))[0]) for table in TAGGED)
    except (sqlite3.Error, StoreError):
        return 0


def verify(path: Path, sealer: Sealer, advance: Advance) -> Verdict:
    """Look at every row of the buffer at `path`: structure, tag, seal, place, key and session.

    Args:
        path: of the file; it is not written to.
        sealer: opens.
        advance: told how many more rows are done.

    Raises:
        StoreError: `store-open` when there is no such file.
    """
    verdict = Verdict()
    with closing(open_reader(path, remedy=SALVAGE)) as connection:
        connection.text_factory = any_text
        try:
            _verify_file(connection, verdict)
            check = _RowCheck(connection, sealer)
            for table in TAGGED:
                _verify_table(connection, table, check, verdict, advance)
        except sqlite3.Error as error:
            verdict.problems.append(Problem("unreadable", "the file", 1, str(error)))
    return verdict


_PRAGMAS: Final = ("page_size", "freelist_count")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sealed_bytes(connection: sqlite3.Connection, table: str) -> int:
    if table not in SEALED:
        return 0
    return int(next(connection.execute(f"SELECT coalesce(sum(length(sealed)), 0) FROM {table}"))[0])


def _streams(connection: sqlite3.Connection) -> list[dict[str, object]]:
    """What is stored of each stream: parts of signal, and records; times of both."""
    place = f"(id >> {PART_BITS}) & {(1 << STREAM_BITS) - 1} AS place"
    rows = connection.execute(
        "SELECT name, count(of_blobs) AS rows, sum(samples) AS samples, count(*) - count(of_blobs) AS records,"
        " min(begin_ns) AS oldest_ns, max(until_ns) AS newest_ns FROM streams LEFT JOIN"
        f" (SELECT {place}, 1 AS of_blobs, samples, start_ns AS begin_ns, end_ns AS until_ns FROM blobs UNION ALL"
        f" SELECT {place}, NULL, 0, time_ns, time_ns FROM records) ON place = number GROUP BY name ORDER BY name"
    )
    return [
        {
            "stream": row["name"],
            "rows": row["rows"],
            "samples": row["samples"] or 0,
            "records": row["records"] if row["newest_ns"] is not None else 0,
            "oldest_ns": row["oldest_ns"],
            "newest_ns": row["newest_ns"],
        }
        for row in rows
    ]


def _verify_file(connection: sqlite3.Connection, verdict: Verdict) -> None:
    answer = str(next(connection.execute("PRAGMA integrity_check(1)"))[0])
    if answer != "ok":
        verdict.problems.append(Problem("structure", "the file", 1, answer))
    applied = [row[0] for row in connection.execute("SELECT name FROM migrations ORDER BY applied_order")]
    if applied != [migration.name for migration in MIGRATIONS] or shape_of(connection) != right_shape():
        verdict.problems.append(Problem("schema", "the file", 1, "its tables are not those of this version"))


def _verify_table(
    connection: sqlite3.Connection, table: str, check: _RowCheck, verdict: Verdict, advance: Advance
) -> None:
    found: dict[str, Problem] = {}
    verdict.rows[table] = 0
    for rows in _pages(connection, table):
        for row in rows:
            for code in check.problems(table, row):
                key = " ".join(str(row[name]) for name in key_columns(table))
                known = found.get(code, Problem(code, table, 0, key))
                found[code] = Problem(code, table, known.rows + 1, known.example)
        verdict.rows[table] += len(rows)
        advance(len(rows))
    verdict.problems.extend(found.values())


def _pages(connection: sqlite3.Connection, table: str) -> Iterator[list[sqlite3.Row]]:
    keys = key_columns(table)
    order, marks = ", ".join(keys), ", ".join("?" * len(keys))
    rows = connection.execute(f"SELECT * FROM {table} ORDER BY {order} LIMIT {_PAGE_ROWS}").fetchall()
    while rows:
        yield rows
        last = [rows[-1][name] for name in keys]
        rows = connection.execute(
            f"SELECT * FROM {table} WHERE ({order}) > ({marks}) ORDER BY {order} LIMIT {_PAGE_ROWS}", last
        ).fetchall()


class _RowCheck:
    """What must hold for each row by itself."""

    def __init__(self, connection: sqlite3.Connection, sealer: Sealer) -> None:
        self._sealer = sealer
        self._keys = {row[0] for row in connection.execute("SELECT key_id FROM seal_keys")}
        self._streams = {row[0]: str(row[1]) for row in connection.execute("SELECT number, name FROM streams")}
        self._sessions = {row[0] for row in connection.execute("SELECT session FROM sessions")}

    def problems(self, table: str, row: sqlite3.Row) -> Iterator[str]:
        """Codes of what does not hold."""
        if not is_sound(row):
            yield "tag"
        if table in OF_A_SESSION and table not in _SESSIONLESS and row["session"] not in self._sessions:
            yield "session-unknown"
        if table == "seal_keys" and row["key_id"] not in self._sealer.ring.ids:
            yield "key-missing"
        if table in SEALED:
            yield from self._sealed(table, row)

    def _sealed(self, table: str, row: sqlite3.Row) -> Iterator[str]:
        if row["key_id"] and row["key_id"] not in self._keys:
            yield "key-unrecorded"
        try:
            self._open(table, row)
        except StoreError as error:
            yield {"blob-sealed": "seal", "blob-swapped": "place"}.get(error.code, error.code)
        except MalformedError:
            yield "content"

    def _open(self, table: str, row: sqlite3.Row) -> None:
        session = row["session"]
        if table in {"blobs", "records", "summaries"}:
            stream, unit = StreamId(self._streams.get(stream_number_of(row["id"]), "")), second_of(row["id"])
            if table == "blobs":
                part = self._sealer.open(row["sealed"], stream, session, unit)
                if (part.start_ns, part.values.shape) != (row["start_ns"], (row["samples"], row["channels"])):
                    raise StoreError("blob-swapped", "a row of signal says other than its blob")
            elif table == "records":
                if row["time_ns"] // NS_PER_S != unit:
                    raise StoreError("blob-swapped", "a record lies in another second")
                place = record_place(stream, session, row["time_ns"])
                decode_record(self._sealer.open_row(row["sealed"], place), stream, row["time_ns"])
            else:
                open_summary(self._sealer, row["sealed"], stream, SessionId(session), unit)
        elif table == "windows":
            open_window(self._sealer, row)
        else:
            open_explanation(self._sealer, row)
