"""The transaction of a group commit: what waits becomes rows, in order; what cannot is counted in the same transaction.

in = stored + what these counters say: `dropped-...` (its second is full, or no column takes it), `duplicate-records`
(stored already), `expired-records` (older than what its session still keeps).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from bedside.agent.buffer.deliveries import put_deliveries
from bedside.agent.buffer.duplicates import is_again
from bedside.agent.buffer.eviction import Evictor, count_all, insert_label, insert_predictions
from bedside.agent.buffer.places import RawPlaces
from bedside.agent.buffer.quarantine import insert_unmapped
from bedside.agent.buffer.quota import Quota
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.waiting import DROPPED, OF_ONE_ROW, SealedRow, Waiting
from bedside.core.ids import StreamId

_CHUNK_ROWS: Final = 16
"""Room is made for so many rows at a time."""


class Inserter:
    """Of one buffer's writer."""

    def __init__(
        self, evictor: Evictor, places: RawPlaces, streams: Mapping[StreamId, int], quota: Quota, sealer: Sealer
    ) -> None:
        self._evictor = evictor
        self._places = places
        self._streams = streams
        self._quota = quota
        self._sealer = sealer

    def insert(self, tx: sqlite3.Connection, rows: Sequence[SealedRow], waiting: Waiting) -> None:
        """Insert these rows of what waits, and all else that does."""
        counts = waiting.counts.copy()
        for first in range(0, len(rows), _CHUNK_ROWS):
            chunk = rows[first : first + _CHUNK_ROWS]
            self._evictor.make_room(tx, sum(row.size_bytes for row in chunk))
            for row in chunk:
                left_out = self._insert_row(tx, row)
                if left_out:
                    counts[row.stream, row.session, left_out] += 1
        insert_predictions(tx, [prediction for _, prediction in waiting.predictions])
        full = self._quota.is_full(tx)
        for _, label in waiting.labels:
            if full or self._quota.is_full(tx):
                counts[label.stream, label.session, "dropped-labels"] += 1
            else:
                insert_label(tx, label)
        insert_unmapped(tx, waiting.unmapped.values(), self._quota.max_kinds)
        put_deliveries(tx, waiting.deliveries.values())
        count_all(tx, counts)
        self._evictor.make_room(tx)

    def _insert_row(self, tx: sqlite3.Connection, row: SealedRow) -> str:
        """Insert one row; returns the counter of why it was not, which is its own fault alone, else nothing."""
        number = self._streams[row.stream]
        try:
            if row.table == "records":
                if _is_expired(tx, row):
                    return "expired-records"
                if is_again(tx, self._sealer, row, number):
                    return "duplicate-records"
            self._places.note(number, row.second)
            return "" if row.insert(tx, number) else DROPPED[row.table]
        except OF_ONE_ROW:
            return DROPPED[row.table]


def _is_expired(tx: sqlite3.Connection, row: SealedRow) -> bool:
    """Whether retention is past a late record: nobody would come to delete it any more."""
    session = tx.execute("SELECT expired_ns FROM sessions WHERE session = ?", (row.session,)).fetchone()
    return session is not None and int(row.columns["time_ns"]) < session["expired_ns"]
