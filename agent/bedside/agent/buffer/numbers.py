"""Numbers that are given once: of streams, and of predictions."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

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
    """The highest number that was ever stored, also when its row is gone: numbers are not used again."""
    row = database.row("SELECT seq FROM sqlite_sequence WHERE name = 'predictions'")
    return int(row["seq"]) if row is not None else 0
