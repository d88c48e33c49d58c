"""Which session a stream is in: opened and closed by marks, by an operator, or by a gap.

Every change commits at once.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from bedside.agent.buffer.part import end_ns
from bedside.core.clock import Entropy
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block
from bedside.service.sqlite import Database

_ID_BYTES: Final = 8

_LATEST: Final = """
    SELECT max(coalesce((SELECT end_ns FROM blobs WHERE session = :session ORDER BY id DESC LIMIT 1), 0),
               coalesce((SELECT max(end_ns) FROM predictions WHERE session = :session), 0)) AS latest
"""
# A kill may lose the newest signal and leave what was predicted on it; signal time starts again behind both.


@dataclass(slots=True)
class _Current:
    session: SessionId
    opened_ns: int
    end_ns: int


class Sessions:
    """The open session of every stream, in memory and in the table."""

    def __init__(self, database: Database, entropy: Entropy, *, gap_ns: int, consent_training: bool) -> None:
        """Take up the sessions that were open when the file was last closed.

        Args:
            database: the buffer's.
            entropy: for session ids.
            gap_ns: silence after which the next block belongs to another session.
            consent_training: what a session starts with.
        """
        self._database = database
        self._entropy = entropy
        self._gap_ns = gap_ns
        self._consent_training = consent_training
        self._current: dict[StreamId, _Current] = {}
        for row in database.connection.execute(
            "SELECT session, stream, opened_ns FROM sessions WHERE closed_ns IS NULL ORDER BY number"
        ).fetchall():
            last = database.connection.execute(_LATEST, {"session": row["session"]}).fetchone()
            latest_ns = max(row["opened_ns"], last["latest"])
            self._current[StreamId(row["stream"])] = _Current(SessionId(row["session"]), row["opened_ns"], latest_ns)

    def of(self, block: Block) -> SessionId:
        """The session that `block` belongs to; opens one when there is none or the silence was too long."""
        current = self._current.get(block.stream)
        if current is None or abs(block.start_ns - current.end_ns) > self._gap_ns:
            self.open(block.stream, block.start_ns, "gap")
            current = self._current[block.stream]
        current.end_ns = max(current.end_ns, end_ns(block))
        return current.session

    def open(self, stream: StreamId, at_ns: int, origin: str, *, consent_training: bool | None = None) -> SessionId:
        """Close what is open and open another session, durably."""
        session = SessionId(self._entropy.token_bytes(_ID_BYTES).hex())
        consent = self._consent_training if consent_training is None else consent_training
        current = self._current.get(stream)

        def work(tx: sqlite3.Connection) -> None:
            if current is not None:
                _close(tx, current.session, max(current.opened_ns, min(current.end_ns, at_ns)))
            tx.execute(
                "INSERT INTO sessions (session, stream, opened_ns, consent_training, origin) VALUES (?, ?, ?, ?, ?)",
                (session, stream, at_ns, consent, origin),
            )

        self._database.run_tx("open session", work)
        self._current[stream] = _Current(session, at_ns, at_ns)
        return session

    def close(self, stream: StreamId, at_ns: int) -> SessionId | None:
        """Close the stream's session, durably; None when none is open."""
        current = self._current.get(stream)
        if current is None:
            return None
        self._database.run_tx("close session", lambda tx: _close(tx, current.session, at_ns))
        del self._current[stream]
        return current.session

    def current(self, stream: StreamId) -> SessionId | None:
        """The open session of `stream`."""
        current = self._current.get(stream)
        return current.session if current is not None else None

    def set_consent(self, session: SessionId, *, training: bool) -> bool:
        """Give or withdraw consent to train on a session; False when there is no such session."""
        return self._database.run_tx(
            "session consent",
            lambda tx: (
                tx.execute("UPDATE sessions SET consent_training = ? WHERE session = ?", (training, session)).rowcount
                > 0
            ),
        )

    def drop(self, session: SessionId) -> None:
        """Forget that `session` is open, after its rows are gone."""
        self._current = {stream: now for stream, now in self._current.items() if now.session != session}

    def last_end_ns(self, stream: StreamId) -> int:
        """End of the latest signal or session of `stream`, 0 when there was none."""
        row = self._database.connection.execute(
            "SELECT max(coalesce(closed_ns, opened_ns)) AS latest FROM sessions WHERE stream = ?", (stream,)
        ).fetchone()
        current = self._current.get(stream)
        return max(row["latest"] or 0, current.end_ns if current is not None else 0)


def _close(tx: sqlite3.Connection, session: SessionId, at_ns: int) -> None:
    tx.execute("UPDATE sessions SET closed_ns = ? WHERE session = ?", (at_ns, session))
