"""The same record again: a sender that saw no acknowledgement sends once more what was kept.

The same is what has the same stream and time, the same fields, values and units; another value at that time is another
record. Records lie by second, so that a look at what is stored of that second is a look at a row or two, and only those
of the very time are opened.
"""

from __future__ import annotations

import math
import sqlite3
from typing import Final

from bedside.agent.buffer.records import decode_record, record_place
from bedside.agent.buffer.schema import ids_of
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.waiting import SealedRow
from bedside.core.errors import MalformedError, StoreError
from bedside.core.ids import SessionId
from bedside.core.samples import Record

_MOST: Final = 64
"""Records of one time that a new one is held against: the newest."""


def is_again(tx: sqlite3.Connection, sealer: Sealer, row: SealedRow, stream_number: int) -> bool:
    """Whether the record in `row` is stored already, in whichever session of its stream."""
    first, last = ids_of(row.second, stream_number)
    stored = tx.execute(
        "SELECT session, sealed FROM records WHERE id BETWEEN ? AND ? AND time_ns = ? ORDER BY id DESC LIMIT ?",
        (first, last, row.columns["time_ns"], _MOST),
    ).fetchall()
    if not stored:
        return False
    fresh = _open(sealer, row, row.session, row.sealed)
    return fresh is not None and any(_same(fresh, _open(sealer, row, one["session"], one["sealed"])) for one in stored)


def _open(sealer: Sealer, row: SealedRow, session: str, sealed: bytes) -> Record | None:
    time_ns = int(row.columns["time_ns"])
    try:
        content = sealer.open_row(sealed, record_place(row.stream, SessionId(session), time_ns))
        return decode_record(content, row.stream, time_ns)
    except (StoreError, MalformedError):
        return None


def _same(fresh: Record, stored: Record | None) -> bool:
    if stored is None or fresh.values.keys() != stored.values.keys() or fresh.units != stored.units:
        return False
    return all(
        value == stored.values[name] or (math.isnan(value) and math.isnan(stored.values[name]))
        for name, value in fresh.values.items()
    )
