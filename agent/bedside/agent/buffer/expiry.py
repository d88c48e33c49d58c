"""The writing side of retention: one step of it, decided on before and taken in one transaction.

Invariant: a step is taken whole or not at all, and only when the session stands where it stood when the step was
prepared. So nothing is lost or stored twice, wherever a process is killed.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from bedside.agent.buffer.derived import SealedWindow, seal_summary
from bedside.agent.buffer.eviction import Evictor, count, count_all
from bedside.agent.buffer.rows import Session, Summary
from bedside.agent.buffer.schema import LAST_NS, ids_of
from bedside.agent.buffer.seal import Sealer
from bedside.core.ids import SessionId, StreamId

Swept = Literal["windows", "summaries", "predictions", "explanations", "labels", "alarms"]


@dataclass(frozen=True, slots=True)
class ExpiredMinute:
    """A minute of one session (or less) that leaves windows and a summary behind.

    Attributes:
        session: as it was when this was prepared.
        expired_ns: how far retention has come after it; `LAST_NS` when nothing raw is left.
        raw_ns: of the session after it.
        anchor_ns: of the session after it.
        first_second: the stream has no raw rows before it any more.
        parts: ids in `blobs` to delete.
        records: ids in `records` to delete.
        windows: sealed before, because that takes longer than a transaction should.
    """

    session: Session
    expired_ns: int
    raw_ns: int
    anchor_ns: int
    first_second: int
    parts: Sequence[int] = ()
    records: Sequence[int] = ()
    windows: Sequence[SealedWindow] = ()
    summaries: Sequence[Summary] = ()

    def apply(self, tx: sqlite3.Connection, sealer: Sealer, evictor: Evictor, streams: Mapping[StreamId, int]) -> bool:
        """Take the step; False, and nothing, when the session has changed."""
        session = self.session
        moved = tx.execute(
            "UPDATE sessions SET expired_ns = ?, raw_ns = ?, anchor_ns = ? WHERE session = ? AND expired_ns = ?",
            (self.expired_ns, self.raw_ns, self.anchor_ns, session.session, session.expired_ns),
        ).rowcount
        if not moved:
            return False
        samples = 0
        for place in self.parts:
            gone = tx.execute("DELETE FROM blobs WHERE id = ? RETURNING samples", (place,)).fetchone()
            samples += int(gone["samples"]) if gone is not None else 0
        tx.executemany("DELETE FROM records WHERE id = ?", [(place,) for place in self.records])
        for window in self.windows:
            _insert_window(tx, window)
        for summary in self.summaries:
            _insert_summary(tx, sealer, summary, streams[summary.stream])
        for name, amount in (
            ("expired-parts", len(self.parts)),
            ("expired-samples", samples),
            ("expired-records", len(self.records)),
            ("stored-windows", len(self.windows)),
        ):
            if amount:
                count(tx, session.stream, session.session, name, amount)
        evictor.make_room(tx)
        return True


@dataclass(frozen=True, slots=True)
class ExpiredRows:
    """Old rows of one table, by key; and closed sessions of which nothing is left to keep.

    Attributes:
        table: which.
        keys: its rows.
        sessions: to delete with all their rows.
    """

    table: Swept = "windows"
    keys: Sequence[int] = ()
    sessions: Sequence[SessionId] = field(default=())

    def apply(self, tx: sqlite3.Connection, sealer: Sealer, evictor: Evictor, streams: Mapping[StreamId, int]) -> bool:
        """Delete and count them; a session's counters stay, without its name."""
        del sealer, evictor, streams
        gone: Counter[tuple[str, str, str]] = Counter()
        key = "prediction" if self.table == "explanations" else "id"
        for place in self.keys:
            row = tx.execute(f"DELETE FROM {self.table} WHERE {key} = ? RETURNING session", (place,)).fetchone()
            if row is not None:
                gone[*_of_session(tx, row["session"]), f"expired-{self.table}"] += 1
        count_all(tx, gone)
        for session in self.sessions:
            _delete_session(tx, session)
        return True


def _insert_window(tx: sqlite3.Connection, window: SealedWindow) -> None:
    row = asdict(window)
    marks = ", ".join("?" * len(row))
    tx.execute(f"INSERT OR IGNORE INTO windows ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))


def _insert_summary(tx: sqlite3.Connection, sealer: Sealer, summary: Summary, stream_number: int) -> None:
    first, last = ids_of(summary.minute, stream_number)
    newest = tx.execute("SELECT max(id) FROM summaries WHERE id BETWEEN ? AND ?", (first, last)).fetchone()[0]
    place = first if newest is None else newest + 1
    if place <= last:
        tx.execute(
            "INSERT INTO summaries (id, session, key_id, sealed) VALUES (?, ?, ?, ?)",
            (place, summary.session, sealer.key_id, seal_summary(sealer, summary)),
        )


def _delete_session(tx: sqlite3.Connection, session: SessionId) -> None:
    row = tx.execute(
        "SELECT 1 FROM sessions WHERE session = ? AND closed_ns IS NOT NULL AND expired_ns = ?", (session, LAST_NS)
    ).fetchone()
    if row is None:
        return
    stream, _ = _of_session(tx, session)
    for table in ("labels", "alarms", "windows", "explanations"):
        gone = tx.execute(f"DELETE FROM {table} WHERE session = ?", (session,)).rowcount
        if gone:
            count(tx, stream, session, f"expired-{table}", gone)
    for stream, name, value in tx.execute(
        "SELECT stream, name, value FROM counters WHERE session = ?", (session,)
    ).fetchall():
        count(tx, stream, "", name, value)
    for table in ("counters", "sessions"):
        tx.execute(f"DELETE FROM {table} WHERE session = ?", (session,))


def _of_session(tx: sqlite3.Connection, session: str) -> tuple[str, str]:
    """Stream and name of a session to count under; both empty where it is gone."""
    row = tx.execute("SELECT stream FROM sessions WHERE session = ?", (session,)).fetchone()
    return (row["stream"], session) if row is not None else ("", "")
