"""The byte cap: the oldest blobs go, inside the transaction that inserts, and every one is counted."""

from __future__ import annotations

import sqlite3
from typing import Final

from bedside.agent.buffer.schema import stream_number_of

ROW_BYTES: Final = 96
"""Bytes that a blob's row costs beside its blob."""

MAX_PREDICTIONS: Final = 1_000_000
"""Rows of predictions kept: about 100 MB, two weeks of one decision a second."""

_SLACK_DIVISOR: Final = 64
_BATCH_ROWS: Final = 64


def stored_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of all blobs with their rows."""
    row = connection.execute("SELECT coalesce(sum(length(sealed)), 0), count(*) FROM blobs").fetchone()
    return int(row[0]) + ROW_BYTES * int(row[1])


def evict(tx: sqlite3.Connection, total_bytes: int, cap_bytes: int, stream_names: dict[int, str]) -> int:
    """Bring `total_bytes` under the cap, and a little further so that it is seldom needed; return what is left."""
    if total_bytes <= cap_bytes:
        return total_bytes
    goal_bytes = cap_bytes - cap_bytes // _SLACK_DIVISOR
    while total_bytes > goal_bytes:
        rows = tx.execute(
            "SELECT id, session, samples, length(sealed) AS size FROM blobs ORDER BY id LIMIT ?", (_BATCH_ROWS,)
        ).fetchall()
        if not rows:
            return 0
        for row in rows:
            if total_bytes <= goal_bytes:
                break
            tx.execute("DELETE FROM blobs WHERE id = ?", (row["id"],))
            total_bytes -= row["size"] + ROW_BYTES
            stream = stream_names[stream_number_of(row["id"])]
            count(tx, stream, row["session"], "evicted-parts", 1)
            count(tx, stream, row["session"], "evicted-samples", row["samples"])
    return total_bytes


def evict_predictions(tx: sqlite3.Connection, keep: int = MAX_PREDICTIONS) -> None:
    """Delete the oldest predictions beyond `keep`."""
    gone = tx.execute("DELETE FROM predictions WHERE id <= (SELECT max(id) FROM predictions) - ?", (keep,)).rowcount
    if gone > 0:
        count(tx, "", "", "evicted-predictions", gone)


def count(tx: sqlite3.Connection, stream: str, session: str, name: str, amount: int) -> None:
    """Add `amount` to a durable counter."""
    tx.execute(
        "INSERT INTO counters (stream, session, name, value) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (stream, session, name) DO UPDATE SET value = value + excluded.value",
        (stream, session, name, amount),
    )
