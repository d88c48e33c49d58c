"""Sessions that the disk has not taken yet, known from memory, so that a full disk stops no inference.

Whoever lies in the bed now must not be taken for the one before because a session could not be written: what begins or
ends a session counts at once, and is written, in order and under the same ids, as soon as the disk takes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bedside.agent.buffer.session_ids import draw_session_id
from bedside.agent.buffer.sessions import Sessions
from bedside.core.clock import Clock, Entropy
from bedside.core.ids import SessionId, StreamId

MAX_AHEAD: Final = 1_000
"""Changes that wait; beyond that a stream has no session that anything could be kept under."""
RETRY_S: Final = 1.0
"""Seconds between two tries."""


@dataclass(slots=True)
class _Change:
    """A session that begins, or, without an id, the end of the one that is open."""

    stream: StreamId
    at_ns: int
    origin: str
    session: SessionId | None


@dataclass(slots=True)
class _State:
    session: SessionId | None
    end_ns: int


class SessionsAhead:
    """What `Sessions` could not write."""

    def __init__(
        self, sessions: Sessions, clock: Clock, entropy: Entropy, lost: Callable[[StreamId], None], *, gap_ns: int
    ) -> None:
        """Begin without any; `lost` is told of a stream whose change is one too many to wait."""
        self._lost = lost
        self._sessions = sessions
        self._clock = clock
        self._entropy = entropy
        self._gap_ns = gap_ns
        self._changes: deque[_Change] = deque()
        self._states: dict[StreamId, _State] = {}
        self._tried_s = -RETRY_S

    def current(self, stream: StreamId) -> SessionId | None:
        """The session of `stream`, on the disk or not."""
        state = self._states.get(stream)
        return state.session if state is not None else self._sessions.current(stream)

    def waits(self, stream: StreamId) -> bool:
        """Whether a change of the stream's session is not written yet."""
        return stream in self._states

    def of(self, stream: StreamId, start_ns: int, end_ns: int, *, may_be_late: bool = False) -> SessionId | None:
        """The session of what a stream said and the disk refused; None where too many changes wait.

        With `may_be_late` what is older than the open session is nobody's: late records begin no session here.
        """
        state = self._states.get(stream)
        if may_be_late and start_ns < self._begin_ns(stream):
            return None
        if state is None and self._sessions.goes_on(stream, start_ns):
            return self._sessions.current(stream)
        if state is None:
            self.open(stream, start_ns, self._sessions.unsaid_origin(stream))
        elif state.session is None or abs(start_ns - state.end_ns) > self._gap_ns:
            self.open(stream, start_ns, "after-close" if state.session is None else "gap")
        state = self._states[stream]
        state.end_ns = max(state.end_ns, end_ns)
        return state.session

    def open(self, stream: StreamId, at_ns: int, origin: str) -> None:
        """A session begins that could not be written; not where one that was opened by hand waits for this."""
        if self._awaits(stream, at_ns):
            return
        session = draw_session_id(self._entropy)
        self._wait(_Change(stream, at_ns, origin, session))

    def close(self, stream: StreamId, at_ns: int) -> None:
        """The open session ends, which could not be written."""
        if self.current(stream) is not None and not self._awaits(stream, at_ns):
            self._wait(_Change(stream, at_ns, "", None))

    def drop(self, session: SessionId) -> None:
        """Forget a session that is erased."""
        self._changes = deque(change for change in self._changes if change.session != session)
        self._states = {stream: state for stream, state in self._states.items() if state.session != session}

    def settle(self, *, now: bool = False) -> None:
        """Write what waits, in order: once a second at most, or `now`.

        Raises:
            StoreError: `store-write`; what is left still waits.
        """
        if not self._changes:
            return
        now_s = self._clock.monotonic_s()
        if not now and now_s - self._tried_s < RETRY_S:
            return
        self._tried_s = now_s
        while self._changes:
            self._write(self._changes[0])
            self._changes.popleft()
        for stream, state in self._states.items():
            if state.session is not None:
                self._sessions.of(stream, state.end_ns, state.end_ns)
        self._states.clear()

    def _begin_ns(self, stream: StreamId) -> int:
        """The earliest that is of the open session, as far as is known; 0 where none is open."""
        state, open_ = self._states.get(stream), self._sessions.span(stream)
        if state is not None:
            return state.end_ns - self._gap_ns if state.session is not None else 0
        if open_ is None:
            return 0
        return open_.opened_ns if open_.said and not open_.awaited else open_.opened_ns - self._gap_ns

    def _awaits(self, stream: StreamId, at_ns: int) -> bool:
        return stream not in self._states and self._sessions.awaits(stream, at_ns)

    def _write(self, change: _Change) -> None:
        if change.session is None:
            self._sessions.close(change.stream, change.at_ns)
        else:
            self._sessions.open(change.stream, change.at_ns, change.origin, session=change.session)

    def _wait(self, change: _Change) -> None:
        full = len(self._changes) >= MAX_AHEAD
        self._states[change.stream] = _State(None if full else change.session, change.at_ns)
        if full:
            self._lost(change.stream)
        else:
            self._changes.append(change)
