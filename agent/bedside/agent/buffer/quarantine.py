"""What sources could not understand: one row per source, reason and kind of reading, with a count, and never a value.

A value is a patient's, and may be a name. One that nobody can place belongs to no session that could be erased, so that
none is kept (docs/adr/0019-the-quarantine-keeps-no-values.md).

Invariants:
    * Every count arrives: in = the sum of counts, whatever is bounded, evicted or cleared by hand only.
    * The number of rows is bounded, for a sender may invent a code per message: what is new beyond it is counted under
      its source and reason. A source has one name, and reasons are few.
    * What is kept of a kind has the form of codes, whoever made it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from bedside.agent.buffer.bounds import END_NS
from bedside.agent.buffer.rows import Quarantined
from bedside.core.samples import Unmapped
from bedside.core.vocabulary.reading import Reason, as_what

OTHER: Final = "(others)"
"""What stands for the kinds that are one too many."""
MAX_COUNT: Final = 1 << 62

_REASONS: Final = frozenset(Reason)
_COLUMNS: Final = "source, reason, what, count, first_ns, last_ns"
_CHOSEN: Final = "(?1 = '' OR source = ?1) AND (?2 = '' OR reason = ?2)"


def quarantined(unmapped: Unmapped) -> Quarantined:
    """What a source could not understand, as it may be kept."""
    reason = unmapped.reason if unmapped.reason in _REASONS else Reason.BAD_MESSAGE
    count, time_ns = min(max(0, unmapped.count), MAX_COUNT), min(max(0, unmapped.time_ns), END_NS)
    return Quarantined(unmapped.source, str(reason), as_what(unmapped.what), count, time_ns, time_ns)


def merged(one: Quarantined, other: Quarantined) -> Quarantined:
    """Two counts of one kind as one."""
    first_ns, last_ns = min(one.first_ns, other.first_ns), max(one.last_ns, other.last_ns)
    return Quarantined(*one.kind, min(one.count + other.count, MAX_COUNT), first_ns, last_ns)


def insert_unmapped(tx: sqlite3.Connection, rows: Iterable[Quarantined], max_kinds: int) -> None:
    """Add to the counts, or begin them, with `max_kinds` kinds at most beside one of others per source and reason."""
    for row in rows:
        what = row.what if _is_known(tx, row) or _kinds(tx) < max_kinds else OTHER
        tx.execute(
            f"INSERT INTO quarantine ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (source, reason, what) DO UPDATE SET count = min(count + excluded.count, ?7),"
            " first_ns = min(first_ns, excluded.first_ns), last_ns = max(last_ns, excluded.last_ns)",
            (row.source, row.reason, what, row.count, row.first_ns, row.last_ns, MAX_COUNT),
        )


def clear(tx: sqlite3.Connection, source: str, reason: str) -> list[Quarantined]:
    """Remove the rows of a source and a reason, of all where empty, and return them."""
    found = tx.execute(f"DELETE FROM quarantine WHERE {_CHOSEN} RETURNING {_COLUMNS}", (source, reason)).fetchall()
    return sorted(map(row_of, found), key=lambda row: row.kind)


SELECT: Final = f"SELECT * FROM quarantine WHERE {_CHOSEN} ORDER BY source, reason, what"


def row_of(row: sqlite3.Row) -> Quarantined:
    """A row of the table."""
    return Quarantined(*(row[name] for name in _COLUMNS.split(", ")))


def _is_known(tx: sqlite3.Connection, row: Quarantined) -> bool:
    return (
        tx.execute("SELECT 1 FROM quarantine WHERE source = ? AND reason = ? AND what = ?", row.kind).fetchone()
        is not None
    )


def _kinds(tx: sqlite3.Connection) -> int:
    return int(tx.execute("SELECT count(*) FROM quarantine").fetchone()[0])
