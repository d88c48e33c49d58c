"""Numbers that are given once: of streams, and of predictions."""

from __future__ import annotations

import sqlite3

from bedside.core.ids import StreamId
from bedside.service.sqlite import Database


def stream_number(tx: sqlite3.Connection, stream: StreamId) -> int:
    """The number of a stream that this store has not written to; its name may be there, for what was said of it."""
    tx.execute("INSERT OR IGNORE INTO streams (name) VALUES (?)", (stream,))
    return int(tx.execute("SELECT number FROM streams WHERE name = ?", (stream,)).fetchone()["number"])


def last_prediction_number(database: Database) -> int:
    """The highest number that was ever stored, also when its row is gone: numbers are not used again."""
    row = database.row("SELECT seq FROM sqlite_sequence WHERE name = 'predictions'")
    return int(row["seq"]) if row is not None else 0
