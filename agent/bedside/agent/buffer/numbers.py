"""Numbers that are given once: of streams, of predictions, of changes of alarms, and of records that a sink wants."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final, Literal

from bedside.core.ids import StreamId
from bedside.service.sqlite import Database


class StreamNumbers:
    """Of one buffer's writer.

    Attributes:
        by_name: number of every stream that the store has written to.
        names: the same, by number.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        rows = database.rows("SELECT number, name FROM streams")
        self._by_name = {StreamId(row["name"]): int(row["number"]) for row in rows}
        self._names = {number: name for name, number in self._by_name.items()}
        self.by_name: Mapping[StreamId, int] = self._by_name
        self.names: Mapping[int, StreamId] = self._names

    def of(self, stream: StreamId) -> int:
        """The number of a stream, which gets one when it has none.

        Raises:
            StoreError: `store-write`.
        """
        if stream not in self._by_name:
            number = self._database.run_tx("stream", lambda tx: stream_number(tx, stream))
            self._by_name[stream], self._names[number] = number, stream
        return self._by_name[stream]


def stream_number(tx: sqlite3.Connection, stream: StreamId) -> int:
    """The number of a stream that this store has not written to; its name may be there, for what was said of it."""
    tx.execute("INSERT OR IGNORE INTO streams (name) VALUES (?)", (stream,))
    return int(tx.execute("SELECT number FROM streams WHERE name = ?", (stream,)).fetchone()["number"])


def last_prediction_number(database: Database) -> int:
    """The highest number that was ever stored, or that a sink was told, also when its row is gone."""
    row = database.row(
        "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'predictions'), 0),"
        " coalesce((SELECT max(number) FROM deliveries WHERE what = 'predictions'), 0))"
    )
    return int(row[0]) if row is not None else 0


_COLUMNS: Final = {"alarms": "changed", "records": "number"}


def last_number(database: Database, table: Literal["alarms", "records"]) -> int:
    """The highest number of a change of an alarm, or of a record, that is stored or that a sink has been told of.

    What was erased unsent may leave its number to another row, which no sink has seen either.
    """
    row = database.row(
        f"SELECT max(coalesce((SELECT max({_COLUMNS[table]}) FROM {table}), 0),"
        " coalesce((SELECT max(number) FROM deliveries WHERE what = ?), 0))",
        (table,),
    )
    return int(row[0]) if row is not None else 0


class RecordNumbers:
    """Numbers records as they come, where a sink wants those of their stream.

    Attributes:
        streams: that a sink wants records of.
    """

    def __init__(self, database: Database) -> None:
        self.streams: frozenset[str] = frozenset()
        self._last = last_number(database, "records")

    def following(self, stream: StreamId) -> int:
        """The next number, or 0 for a stream that nobody wants records of."""
        if stream not in self.streams:
            return 0
        self._last += 1
        return self._last
