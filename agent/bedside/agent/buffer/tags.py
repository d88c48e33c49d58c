"""A checksum on what a row says in the clear, so that a flipped bit in it is a row that is lost, never one that lies.

Sealed content proves itself. The plain columns of a row (session, times, labels, numbers) carry a CRC-32 in the column
`tag`, which finds every error of up to 32 bits in a row. Triggers of the one writing connection keep it, whoever
writes the row. It guards against a bad card, not against a person: whoever may write the file may write the tag.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from typing import Final

import msgspec

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
)
"""Every table of the buffer."""

NO_TAG: Final = -1
"""In rows from before there were tags."""

_SLICE_ROWS: Final = 16_384
_TAGGED_VERSION: Final = 1
"""`PRAGMA user_version` of a file in which every row has its tag."""


def tag_of(*values: str | int | float | bytes | None) -> int:
    """CRC-32 of one row's plain values, in the order of its columns."""
    return zlib.crc32(msgspec.msgpack.encode(values))


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
    for table in TAGGED:
        columns, keys = plain_columns(connection, table), _key_columns(connection, table)
        place = " AND ".join(f"{name} IS new.{name}" for name in keys)
        work = f"UPDATE {table} SET {TAG} = {_tag_call(columns, 'new.')} WHERE {place}"
        connection.execute(f"CREATE TEMP TRIGGER {table}_new AFTER INSERT ON main.{table} BEGIN {work}; END")
        connection.execute(
            f"CREATE TEMP TRIGGER {table}_changed AFTER UPDATE OF {', '.join(columns)} ON main.{table}"
            f" BEGIN {work}; END"
        )
    if int(connection.execute("PRAGMA user_version").fetchone()[0]) < _TAGGED_VERSION:
        _tag_all(database)


def damaged_rows(connection: sqlite3.Connection, table: str) -> int:
    """How many rows of a table are not as they were written. The connection keeps tags, or can compute them."""
    columns = plain_columns(connection, table)
    found = connection.execute(f"SELECT count(*) FROM {table} WHERE {TAG} IS NOT {_tag_call(columns)}").fetchone()
    return int(found[0])


def _tag_all(database: Database) -> None:
    """Give a tag to every row without one, a slice at a time: a log of the whole file may find no room."""
    connection = database.connection
    for table in TAGGED:
        keys = ", ".join(_key_columns(connection, table))
        untagged = f"SELECT {keys} FROM {table} WHERE {TAG} = {NO_TAG} LIMIT {_SLICE_ROWS}"
        sql = f"UPDATE {table} SET {TAG} = {_tag_call(plain_columns(connection, table))} WHERE ({keys}) IN ({untagged})"
        while database.run_tx(f"tags of {table}", lambda tx, s=sql: tx.execute(s).rowcount):  # type: ignore[misc]  # the default binds the loop's value
            pass
    database.run_tx("tagged", lambda tx: tx.execute(f"PRAGMA user_version = {_TAGGED_VERSION}"))


def plain_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Columns under the tag, in the order of the table."""
    return [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})") if row[1] not in UNTAGGED]


def _key_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    keys = [(int(row[5]), str(row[1])) for row in connection.execute(f"PRAGMA table_info({table})") if row[5]]
    return [name for _, name in sorted(keys)]


def _tag_call(columns: Sequence[str], prefix: str = "") -> str:
    return f"row_tag({', '.join(prefix + name for name in columns)})"
