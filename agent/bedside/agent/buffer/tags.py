"""A checksum on what a row says in the clear, so that a flipped bit in it is a row that is lost, never one that lies.

Sealed content proves itself. The plain columns of a row (session, times, labels, numbers) carry a CRC-32 in the column
`tag`, which finds every error of up to 32 bits in a row. Triggers of the one writing connection keep it, whoever
writes the row. It guards against a bad card, not against a person: whoever may write the file may write the tag.
"""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from functools import cache
from typing import Final

import msgspec

from bedside.agent.buffer.schema import MIGRATIONS
from bedside.service.sqlite import Database

TAG: Final = "tag"
UNTAGGED: Final = frozenset({TAG, "sealed"})
"""Columns that the tag does not cover: itself, and what its seal guards."""

TAGGED: Final = (
    "seal_keys",
    "streams",
    "sessions",
    "blobs",
    "records",
    "windows",
    "summaries",
    "labels",
    "predictions",
    "explanations",
    "alarms",
    "counters",
    "quarantine",
    "deliveries",
)
"""Every table of the buffer."""

NO_TAG: Final = -1
"""In rows from before there were tags."""

_SLICE_ROWS: Final = 16_384
_TAGGED_ID: Final = 0x62656473
"""`PRAGMA application_id` of a file in which every row has its tag: "beds"."""


def tag_of(*values: str | int | float | bytes | None) -> int:
    """CRC-32 of one row's plain values, in the order of its columns; SQLite keeps no sign of a zero."""
    return zlib.crc32(msgspec.msgpack.encode([value + 0.0 if type(value) is float else value for value in values]))


def any_text(data: bytes) -> str:
    """A `text_factory`: text that damage made no text must fail its tag, not the reading of its neighbours."""
    return data.decode("utf-8", "replace")


def is_sound(row: sqlite3.Row) -> bool:
    """Whether a row, read with all its columns, is as it was written."""
    return bool(row[TAG] == tag_of(*(row[name] for name in row.keys() if name not in UNTAGGED)))  # noqa: SIM118


def keep_tags(database: Database) -> None:
    """Make this writer keep the tags; rows from before there were tags get theirs now.

    Raises:
        sqlite3.Error, StoreError: when the file cannot be read or written.
    """
    connection = database.connection
    connection.create_function("row_tag", -1, tag_of, deterministic=True)
    for trigger in _triggers():
        connection.execute(trigger)
    if not is_tagged(connection):
        _tag_all(database)


def is_tagged(connection: sqlite3.Connection) -> bool:
    """Whether every row of the file has its tag. A damaged header has another mark still."""
    return bool(connection.execute("PRAGMA application_id").fetchone()[0])


def damaged_rows(connection: sqlite3.Connection, table: str) -> int:
    """How many rows of a table are not as they were written; the connection keeps tags."""
    found = connection.execute(f"SELECT count(*) FROM {table} WHERE {TAG} IS NOT {_tag_call(table)}").fetchone()
    return int(found[0])


def key_columns(table: str) -> tuple[str, ...]:
    """The columns of a table's primary key, in their order."""
    return _columns()[table][1]


def shape_of(connection: sqlite3.Connection) -> dict[str, object]:
    """Columns and indexes of every table: with a flipped bit a schema may still be one."""

    def rows(pragma: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in connection.execute(f"PRAGMA {pragma}")]

    return {
        table: (
            rows(f"table_info({table})"),
            [(index, rows(f"index_xinfo({index[1]})")) for index in rows(f"index_list({table})")],
        )
        for table in TAGGED
    }


@cache
def right_shape() -> dict[str, object]:
    """What `shape_of` says of a sound buffer."""
    with closing(sqlite3.connect(":memory:")) as reference:
        for migration in MIGRATIONS:
            reference.executescript(migration.script)
        return shape_of(reference)


def _tag_all(database: Database) -> None:
    """Give a tag to every row without one, a slice at a time: a log of the whole file may find no room."""
    for table in TAGGED:
        keys = ", ".join(key_columns(table))
        untagged = f"SELECT {keys} FROM {table} WHERE {TAG} = {NO_TAG} LIMIT {_SLICE_ROWS}"
        sql = f"UPDATE {table} SET {TAG} = {_tag_call(table)} WHERE ({keys}) IN ({untagged})"
        while database.run_tx(f"tags of {table}", lambda tx, s=sql: tx.execute(s).rowcount):  # type: ignore[misc]  # the default binds the loop's value
            pass
    database.run_tx("tagged", lambda tx: tx.execute(f"PRAGMA application_id = {_TAGGED_ID}"))


@cache
def _triggers() -> tuple[str, ...]:
    triggers = []
    for table, (columns, keys) in _columns().items():
        place = " AND ".join(f"{name} IS new.{name}" for name in keys)
        work = f"UPDATE {table} SET {TAG} = {_tag_call(table, 'new.')} WHERE {place}"
        changed = f"UPDATE OF {', '.join(columns)}"
        triggers += [
            f"CREATE TEMP TRIGGER {table}_{name} AFTER {event} ON main.{table} BEGIN {work}; END"
            for name, event in (("new", "INSERT"), ("changed", changed))
        ]
    return tuple(triggers)


@cache
def _columns() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """The columns under the tag, and those of the primary key, of every table."""
    found = {}
    with closing(sqlite3.connect(":memory:")) as reference:
        for migration in MIGRATIONS:
            reference.executescript(migration.script)
        for table in TAGGED:
            rows = reference.execute(f"SELECT name, pk FROM pragma_table_info('{table}')").fetchall()
            keys = sorted((pk, name) for name, pk in rows if pk)
            found[table] = (
                tuple(name for name, _ in rows if name not in UNTAGGED),
                tuple(name for _, name in keys),
            )
    return found


def _tag_call(table: str, prefix: str = "") -> str:
    return f"row_tag({', '.join(prefix + name for name in _columns()[table][0])})"
