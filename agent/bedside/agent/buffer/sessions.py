"""Which session a stream is in: opened and closed by marks, by an operator, or by a gap.

Every change commits at once.

Invariants:
    * A refusal of consent outlives its session: what begins on the stream without a say of its own is not trained on
      either, after a gap, a restart, a close or an erasure, until somebody consents. Consent does not outlive its
      session: what begins without a say has at most the configured default.
    * What arrives first belongs to the session that was opened by hand, unless that waits for more than a day; one that
      a clock ahead has opened takes it too, and its begin is put right.
    * Until then a source's own mark does not end it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bedside.agent.buffer.schema import LAST_NS
from bedside.agent.buffer.session_ids import draw_session_id, is_held_out
from bedside.core.clock import Entropy
from bedside.core.ids import SessionId, StreamId
from bedside.service.sqlite import Database

BY_HAND: Final = ("cli", "api")
"""Origins of what people and programs say; other sessions begin by themselves, or because a source says so."""
UNSAID: Final = ("gap", "after-close")
"""Origins of sessions that begin with their first signal or record, of which nobody has said so."""
LATE: Final = "late"
"""Origin of a session of nothing but late records; it is never a stream's newest one."""
ADT: Final = "adt"
"""Origin of sessions that a hospital's messages open, perhaps after signal or records of theirs have been stored."""
AWAIT_NS: Final = 86_400_000_000_000
"""A session that was opened by hand waits a day for its first signal; what comes later may be another person's."""

_LATEST_PREDICTIONS: Final = """
    SELECT session, max(end_ns) AS latest FROM predictions
    WHERE id > (SELECT max(id) FROM predictions) - 100000 GROUP BY session
"""
# A kill may lose the newest signal and leave what was predicted on it; signal time starts again behind both. Older
# predictions were written with their signal, or after it.

_NEWEST_SESSIONS: Final = (
    f"SELECT stream, consent_training, max(number) FROM sessions WHERE origin <> '{LATE}' GROUP BY stream"
)

_CONSENTING: Final = "SELECT session FROM sessions WHERE stream = ? AND consent_training ORDER BY number LIMIT 100"
# So many that are all held out there will never be.

_WITHDRAW: Final = (
    "UPDATE sessions SET consent_training = 0 WHERE stream = ?1 AND closed_ns > ?2 RETURNING session, closed_ns"
)
# Not a refusal, which would outlive its session: nobody has said anything.

_LAST_INSIDE: Final = """
    SELECT max(end_ns) AS latest FROM (
        SELECT end_ns FROM predictions WHERE session = ?1 UNION ALL SELECT end_ns FROM windows WHERE session = ?1
        UNION ALL SELECT end_ns FROM labels WHERE session = ?1)
    WHERE end_ns <= ?2
"""


@dataclass(slots=True)
class Current:
    """An open session.

    Attributes:
        end_ns: of its latest signal or record.
        awaited: whether it was opened by hand, and nothing of it has arrived.
        said: whether somebody, or a source, said when it began.
    """

    session: SessionId
    opened_ns: int
    end_ns: int
    awaited: bool
    said: bool


class Sessions:
    """The open session of every stream, in memory and in the table."""

    def __init__(
        self,
        database: Database,
        entropy: Entropy,
        latest_end_ns: Callable[[StreamId, SessionId, int], int],
        *,
        gap_ns: int,
        consent_training: bool,
        in_doubt: Callable[[StreamId, SessionId, int], None] = lambda _stream, _session, _length_ns: None,
    ) -> None:
        """Take up the sessions that were open when the file was last closed.

        Args:
            database: the buffer's.
            latest_end_ns: end of the newest raw row of a stream's session, which was opened at a time.
            entropy: for session ids.
            gap_ns: silence after which the next block belongs to another session.
            consent_training: what a session starts with where nobody said anything.
            in_doubt: is told of a session of which a length of time may be the next person's; it is trained on no more.
        """
        self._database = database
        self._entropy = entropy
        self._gap_ns = gap_ns
        self._latest_end_ns = latest_end_ns
        self._consent_training = consent_training
        self._in_doubt = in_doubt
        self._current: dict[StreamId, Current] = {}
        predicted = {row["session"]: row["latest"] for row in database.rows(_LATEST_PREDICTIONS)}
        for row in database.rows(
            "SELECT session, stream, opened_ns, origin FROM sessions WHERE closed_ns IS NULL ORDER BY number"
        ):
            stream, session, opened_ns = StreamId(row["stream"]), SessionId(row["session"]), int(row["opened_ns"])
            raw_ns = latest_end_ns(stream, session, opened_ns)
            end_ns = max(opened_ns, raw_ns, predicted.get(session, 0))
            awaited = row["origin"] in BY_HAND and not raw_ns and session not in predicted
            self._current[stream] = Current(session, opened_ns, end_ns, awaited, row["origin"] not in UNSAID)
        newest = {StreamId(row["stream"]): bool(row["consent_training"]) for row in database.rows(_NEWEST_SESSIONS)}
        self._closed = newest.keys() - self._current.keys()
        self._refused = {StreamId(row["name"]) for row in database.rows("SELECT name FROM streams WHERE refused")}
        self._refused |= {stream for stream, consent in newest.items() if not consent}

    def of(self, stream: StreamId, start_ns: int, end_ns: int) -> SessionId:
        """The session of what a stream said from `start_ns` to `end_ns`.

        It opens one when there is none, or when the silence was too long.
        """
        if not self.goes_on(stream, start_ns):
            self.open(stream, start_ns, self.unsaid_origin(stream))
        current = self._current[stream]
        if start_ns < current.opened_ns:  # a session's times cover what is in it
            self.begin_earlier(stream, start_ns)
            if current.awaited:  # the clock was wrong when it was opened
                current.end_ns = end_ns
        current.end_ns = max(current.end_ns, end_ns)
        current.awaited = False
        return current.session

    def begin_earlier(self, stream: StreamId, at_ns: int) -> None:
        """Let the open session begin at an earlier time, durably."""
        current = self._current[stream]
        self._database.run_tx("session began", lambda tx: _begin(tx, current.session, at_ns))
        current.opened_ns = at_ns

    def span(self, stream: StreamId) -> Current | None:
        """The open session of `stream` with its times; not to be changed."""
        return self._current.get(stream)

    def goes_on(self, stream: StreamId, start_ns: int) -> bool:
        """Whether what a stream says from `start_ns` on belongs to the session that is open."""
        current = self._current.get(stream)
        if current is None:
            return False
        waits = current.awaited and start_ns - current.opened_ns <= AWAIT_NS
        return waits or abs(start_ns - current.end_ns) <= self._gap_ns

    def awaits(self, stream: StreamId, at_ns: int) -> bool:
        """Whether the open session was opened by hand, and its signal begins now."""
        current = self._current.get(stream)
        return current is not None and current.awaited and self.goes_on(stream, at_ns)

    def of_label(self, stream: StreamId, at_ns: int) -> SessionId:
        """The session of a label that a stream's source says: the open one, or one that begins with the label."""
        return self.current(stream) or self.open(stream, at_ns, self.unsaid_origin(stream))

    def unsaid_origin(self, stream: StreamId) -> str:
        """Why a session begins now of which nobody has said so."""
        return "after-close" if stream in self._closed else "gap"

    def consents_unsaid(self, stream: StreamId) -> bool:
        """Whether a session that begins without a say of its own may be trained on."""
        return self._consent_training and stream not in self._refused

    def open(
        self,
        stream: StreamId,
        at_ns: int,
        origin: str,
        *,
        consent_training: bool | None = None,
        session: SessionId | None = None,
    ) -> SessionId:
        """Close what is open, at its last sample, and open another session, durably.

        `session` is the id that it has been known under, when the disk refused it before.
        """
        consent = self.consents_unsaid(stream) if consent_training is None else consent_training
        opened = session or draw_session_id(self._entropy, trained_on=consent and not self._trains_on_another(stream))
        current = self._current.get(stream)
        doubtful: list[tuple[str, int]] = []

        def work(tx: sqlite3.Connection) -> None:
            if current is not None:
                _close(tx, current.session, min(current.end_ns, at_ns) if current.awaited else current.end_ns)
            doubtful[:] = tx.execute(_WITHDRAW, (stream, at_ns)).fetchall() if origin == ADT else []
            tx.execute(
                "INSERT INTO sessions (session, stream, opened_ns, consent_training, origin) VALUES (?, ?, ?, ?, ?)",
                (opened, stream, at_ns, consent, origin),
            )
            if consent_training is not None:
                _note_say(tx, stream, refused=not consent)

        self._database.run_tx("open session", work)
        latest_ns = max((closed_ns for _, closed_ns in doubtful), default=at_ns)
        self._current[stream] = Current(opened, at_ns, latest_ns, origin in BY_HAND, origin not in UNSAID)
        for doubted, closed_ns in doubtful:
            self._in_doubt(stream, SessionId(doubted), closed_ns - at_ns)
        self._closed.discard(stream)
        if consent_training is not None:
            self._take_say(stream, refused=not consent)
        return opened

    def _trains_on_another(self, stream: StreamId) -> bool:
        rows = self._database.rows(_CONSENTING, (stream,))
        return any(not is_held_out(row["session"]) for row in rows)

    def close(self, stream: StreamId, at_ns: int) -> SessionId | None:
        """Close the stream's session, durably and not before its last sample; None when none is open."""
        current = self._current.get(stream)
        if current is None:
            return None
        close_ns = at_ns if current.awaited else max(at_ns, current.end_ns)
        self._database.run_tx("close session", lambda tx: _close(tx, current.session, close_ns))
        del self._current[stream]
        self._closed.add(stream)
        return current.session

    def current(self, stream: StreamId) -> SessionId | None:
        """The open session of `stream`."""
        current = self._current.get(stream)
        return current.session if current is not None else None

    def opened(self, stream: StreamId) -> tuple[int, str] | None:
        """When the open session of `stream` began, and because of whom; None when none is open."""
        current = self._current.get(stream)
        sql = "SELECT origin FROM sessions WHERE session = ?"
        row = self._database.row(sql, (current.session,)) if current is not None else None
        return (current.opened_ns, str(row["origin"])) if current is not None and row is not None else None

    def set_consent(self, session: SessionId, *, training: bool) -> bool:
        """Give or withdraw consent to train on a session; False when there is no such session.

        What is said of the stream's newest session holds for those that follow by themselves. To be given for them, it
        must be open: a newer one that refused may have been forgotten.
        """

        def work(tx: sqlite3.Connection) -> tuple[bool, StreamId | None]:
            row = tx.execute(
                "SELECT stream, number = (SELECT max(number) FROM sessions AS of_stream"
                f" WHERE of_stream.stream = sessions.stream AND origin <> '{LATE}') AS newest"
                " FROM sessions WHERE session = ?",
                (session,),
            ).fetchone()
            if row is None:
                return False, None
            tx.execute("UPDATE sessions SET consent_training = ? WHERE session = ?", (training, session))
            stream = StreamId(row["stream"])
            if not (self.current(stream) == session if training else row["newest"]):
                return True, None
            _note_say(tx, stream, refused=not training)
            return True, stream

        found, said_of = self._database.run_tx("session consent", work)
        if said_of is not None:
            self._take_say(said_of, refused=not training)
        return found

    def drop(self, session: SessionId) -> None:
        """Forget that `session` is open, after its rows are gone."""
        self._current = {stream: now for stream, now in self._current.items() if now.session != session}

    def last_end_ns(self, stream: StreamId, not_after_ns: int = LAST_NS) -> int:
        """End of the latest signal or session of `stream`, 0 when there was none.

        What lies behind `not_after_ns` comes from a clock that was wrong, and does not count.
        """
        row = self._database.row(
            "SELECT max(coalesce(closed_ns, opened_ns)) AS latest FROM sessions"
            " WHERE stream = ? AND coalesce(closed_ns, opened_ns) <= ?",
            (stream, not_after_ns),
        )
        stored_ns = row["latest"] or 0 if row is not None else 0
        current = self._current.get(stream)
        return max(stored_ns, current.end_ns if current is not None and current.end_ns <= not_after_ns else 0)

    def mend_ends(self, not_after_ns: int) -> int:
        """Let sessions that a wrong clock closed behind `not_after_ns` end with what is in them; return how many.

        Raises:
            StoreError: `store-write`.
        """
        sql = "SELECT * FROM sessions WHERE closed_ns > ?1 AND opened_ns <= ?1"
        ends = []
        for row in self._database.rows(sql, (not_after_ns,)):
            inside = self._database.row(_LAST_INSIDE, (row["session"], not_after_ns))
            raw_ns = self._latest_end_ns(StreamId(row["stream"]), SessionId(row["session"]), row["opened_ns"])
            latest_ns = max(row["opened_ns"], raw_ns, (inside["latest"] if inside is not None else None) or 0)
            if latest_ns <= not_after_ns:
                ends.append((latest_ns, row["session"]))
        if ends:
            sql = "UPDATE sessions SET closed_ns = ? WHERE session = ?"
            self._database.run_tx("mend sessions", lambda tx: tx.executemany(sql, ends))
        return len(ends)

    def _take_say(self, stream: StreamId, *, refused: bool) -> None:
        (self._refused.add if refused else self._refused.discard)(stream)


def _note_say(tx: sqlite3.Connection, stream: StreamId, *, refused: bool) -> None:
    """Note what holds for the sessions of a stream that begin without a say of their own."""
    if refused:
        tx.execute("INSERT OR IGNORE INTO streams (name) VALUES (?)", (stream,))
    tx.execute("UPDATE streams SET refused = ? WHERE name = ? AND refused IS NOT ?", (refused, stream, refused))


def _begin(tx: sqlite3.Connection, session: SessionId, at_ns: int) -> None:
    tx.execute("UPDATE sessions SET opened_ns = ? WHERE session = ?", (at_ns, session))


def _close(tx: sqlite3.Connection, session: SessionId, at_ns: int) -> None:
    """One of which nothing has arrived may close before it was opened, by a clock that was ahead."""
    tx.execute(
        "UPDATE sessions SET closed_ns = ?1, opened_ns = min(opened_ns, ?1) WHERE session = ?2", (at_ns, session)
    )
