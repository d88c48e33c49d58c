"""What sources could not understand: one row per source, reason and kind of reading, with a count, and never a value.

A value is a patient's, and may be a name. One that nobody can place belongs to no session that could be erased, so that
none is kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from bedside.core.samples import Unmapped

MAX_KINDS: Final = 2_000
"""Rows of the quarantine. What is new beyond them is counted under its source and reason alone."""
OTHER: Final = "(others)"


def insert_unmapped(tx: sqlite3.Connection, unmapped: Iterable[Unmapped]) -> None:
    """Add to the counts, or begin them."""
    for one in unmapped:
        what = one.what if _is_known(tx, one) or _kinds(tx) < MAX_KINDS else OTHER
        tx.execute(
            "INSERT INTO quarantine (source, reason, what, count, first_ns, last_ns) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (source, reason, what) DO UPDATE SET"
            " count = count + excluded.count, last_ns = max(last_ns, excluded.last_ns)",
            (one.source, one.reason, what, one.count, one.time_ns, one.time_ns),
        )


def _is_known(tx: sqlite3.Connection, one: Unmapped) -> bool:
    sql = "SELECT 1 FROM quarantine WHERE source = ? AND reason = ? AND what = ?"
    return tx.execute(sql, (one.source, one.reason, one.what)).fetchone() is not None


def _kinds(tx: sqlite3.Connection) -> int:
    return int(tx.execute("SELECT count(*) FROM quarantine").fetchone()[0])
