"""Records that are older than what their stream has said before: backlogs, corrections of order, other senders.

A session is a person, so that a late record never falls into one that had not begun:
    * within the open session it belongs to that, however old it is;
    * in the times of a session that is over, to that one;
    * shortly before an open session that began by itself, with its first record, to that, which then began earlier;
    * else to a session of its own (origin `late`), which is over at once, and which later ones near it share.

Nothing is late where a wrong clock has opened the session, ahead of now: that session is left. Nor where a stream says
nothing else for a minute: then its sender's clock was set back, and this is the present. But what is older than a
session of which somebody has said that it began, or that it ended, never is: it may be a backlog of whoever lay there
before, and no minute of it may raise an alarm over whoever lies there now.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from bedside.agent.buffer.quota import Quota
from bedside.agent.buffer.schema import LAST_NS
from bedside.agent.buffer.session_ids import draw_session_id
from bedside.agent.buffer.sessions import LATE, UNSAID, Current, Sessions
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.service.sqlite import Database

LATE_FOR_S: Final = 60.0
"""Seconds of nothing but late records after which they are the present."""

_BY_ITSELF: Final = ", ".join(f"'{origin}'" for origin in (*UNSAID, LATE))
_SAID: Final = (
    "SELECT 1 FROM sessions WHERE stream = ?1 AND coalesce(closed_ns, opened_ns) BETWEEN ?2 + 1 AND ?3"
    f" AND origin NOT IN ({_BY_ITSELF}) LIMIT 1"
)

_COVERING: Final = (
    "SELECT session FROM sessions WHERE stream = ?1 AND opened_ns <= ?2 AND closed_ns BETWEEN ?2 AND ?3"
    " ORDER BY number DESC LIMIT 1"
)
_NEAR: Final = (
    "SELECT session, opened_ns, closed_ns FROM sessions WHERE stream = ?1 AND origin = ?3 AND expired_ns < ?4"
    " AND opened_ns <= ?2 + ?5 AND closed_ns >= ?2 - ?5 ORDER BY number DESC LIMIT 1"
)
_BETWEEN: Final = (
    "SELECT 1 FROM sessions WHERE stream = ?1 AND session <> ?2 AND opened_ns < ?4"
    " AND (closed_ns IS NULL OR closed_ns > ?3) LIMIT 1"
)


class LateRecords:
    """Finds the sessions of one buffer's late records."""

    def __init__(
        self, database: Database, sessions: Sessions, quota: Quota, clock: Clock, entropy: Entropy, *, gap_ns: int
    ) -> None:
        self._clock = clock
        self._late_since_s: dict[StreamId, float] = {}
        self._database = database
        self._sessions = sessions
        self._quota = quota
        self._entropy = entropy
        self._gap_ns = gap_ns

    def session_of(self, stream: StreamId, time_ns: int) -> SessionId | None:
        """The session of a record if it is late; None where it is not, and `Sessions.of` knows.

        Raises:
            StoreError: `sessions-full`: it has none, and there is no room for one; `store-read`, `store-write`.
        """
        open_, soon_ns = self._sessions.span(stream), self._clock.now_ns() + self._gap_ns
        if not self._is_late(stream, open_, time_ns, soon_ns):
            self._late_since_s.pop(stream, None)
            inside = open_ is not None and not open_.awaited and open_.opened_ns <= time_ns <= open_.end_ns
            return open_.session if open_ is not None and inside else None
        now_s = self._clock.monotonic_s()
        goes_on_s = now_s - self._late_since_s.setdefault(stream, now_s)
        if goes_on_s > LATE_FOR_S and not self._is_before_a_said_one(stream, time_ns, soon_ns):
            return None
        found = self._database.row(_COVERING, (stream, time_ns, soon_ns))
        if found is not None:
            return SessionId(found["session"])
        if open_ is not None and open_.awaited:
            return None
        if open_ is not None and self._begins_earlier(stream, open_, time_ns):
            self._sessions.begin_earlier(stream, time_ns)
            return open_.session
        return self._of_its_own(stream, time_ns)

    def _is_late(self, stream: StreamId, open_: Current | None, time_ns: int, soon_ns: int) -> bool:
        if open_ is None:
            return time_ns <= self._sessions.last_end_ns(stream, soon_ns)
        return time_ns < open_.opened_ns <= soon_ns

    def _is_before_a_said_one(self, stream: StreamId, time_ns: int, soon_ns: int) -> bool:
        """Whether it is older than the begin of a session that somebody opened, or than the end of one that is over."""
        return self._database.row(_SAID, (stream, time_ns, soon_ns)) is not None

    def _begins_earlier(self, stream: StreamId, open_: Current, time_ns: int) -> bool:
        near = not open_.said and open_.opened_ns - time_ns <= self._gap_ns
        return near and not self._is_between(stream, open_.session, time_ns, open_.opened_ns)

    def _of_its_own(self, stream: StreamId, time_ns: int) -> SessionId:
        near = self._database.row(_NEAR, (stream, time_ns, LATE, LAST_NS, self._gap_ns))
        if near is not None:
            first_ns, last_ns = min(near["opened_ns"], time_ns), max(near["closed_ns"], time_ns)
            if not self._is_between(stream, near["session"], first_ns, last_ns):
                sql = "UPDATE sessions SET opened_ns = ?, closed_ns = ? WHERE session = ?"
                self._database.run_tx("late record", lambda tx: tx.execute(sql, (first_ns, last_ns, near["session"])))
                return SessionId(near["session"])
        if self._quota.sessions_full:
            raise StoreError("sessions-full", f"a late record of stream {stream} has no session, and no room for one")
        session = draw_session_id(self._entropy)
        consent = self._sessions.consents_unsaid(stream)

        def work(tx: sqlite3.Connection) -> None:
            tx.execute(
                "INSERT INTO sessions (session, stream, opened_ns, closed_ns, consent_training, origin)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (session, stream, time_ns, time_ns, consent, LATE),
            )

        self._database.run_tx("late session", work)
        return session

    def _is_between(self, stream: StreamId, session: str, first_ns: int, last_ns: int) -> bool:
        """Whether another session lies in these times."""
        return self._database.row(_BETWEEN, (stream, session, first_ns, last_ns)) is not None
