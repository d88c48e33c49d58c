"""What people and programs ask about sessions, answered beside the store's one writer.

A session that is opened or closed by hand begins or ends where the stream's signal stands: everything that has arrived
belongs to the session before, everything that arrives later to the one after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from bedside.agent.buffer.erasure import erase_pending
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Session
from bedside.agent.buffer.store import BufferStore
from bedside.core.clock import Clock
from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.ids import SessionId, StreamId, check_id
from bedside.service.text import bounded

DEFAULT_SESSIONS: Final = 1_000
MAX_SESSIONS: Final = 10_000
"""Sessions of one answer: some 100 bytes each."""

ERASE_LOOK_S: Final = 0.05
ERASE_LOOKS: Final = 20
"""Pauses in which an erasure waits for readers to end, a second in all."""

ORIGINS: Final = ("cli", "api")


class SessionCalls:
    """Opens, closes, lists and erases. Every change is durable when its method returns."""

    def __init__(
        self,
        store: BufferStore,
        reader: BufferReader,
        clock: Clock,
        gap_s: float,
        erase: Callable[[SessionId], Mapping[str, int]] | None = None,
    ) -> None:
        """Work on an open store.

        Args:
            store: the writer.
            reader: of the same file.
            clock: gives the time where a stream is silent.
            gap_s: silence that ends a session, seconds.
            erase: deletes a session from the whole device, and leaves the pages of its rows to be overwritten; absent =
                from the store, where there is nothing else.
        """
        self._store = store
        self._reader = reader
        self._clock = clock
        self._gap_ns = round(gap_s * 1e9)
        self._erase = erase or store.delete
        self._erasing = asyncio.Lock()
        self._pending: set[str] = set()

    def newest(self, stream: str, limit: int) -> list[Session]:
        """The newest sessions of a stream, or of all where it is empty, in the order in which they were opened."""
        found = self._reader.sessions(StreamId(check_id(stream, "stream")) if stream else None)
        return found[-min(limit or DEFAULT_SESSIONS, MAX_SESSIONS) :]

    def open(self, stream: str, *, consent_training: bool | None, origin: str) -> Session:
        """Open a session, and close the one before.

        Raises:
            MalformedError: `bad-id` or `bad-origin`.
            StoreError: `store-write`.
        """
        name = StreamId(check_id(stream, "stream"))
        if origin not in ORIGINS:
            raise MalformedError("bad-origin", f"{bounded(origin, 40)!r} is no origin: {' or '.join(ORIGINS)}")
        self._store.ahead.settle(now=True)  # what the disk refused before comes first
        session = self._store.sessions.open(name, self._reached_ns(name), origin, consent_training=consent_training)
        return self.find(session)

    def close(self, stream: str) -> Session:
        """Close the stream's session.

        Raises:
            MalformedError: `bad-id`.
            ProtocolError: `no-open-session`.
            StoreError: `store-write`.
        """
        name = StreamId(check_id(stream, "stream"))
        self._store.ahead.settle(now=True)
        session = self._store.sessions.close(name, self._reached_ns(name))
        if session is None:
            raise ProtocolError(
                "no-open-session", f"no session of stream {name} is open", remedy="bedside agent session list"
            )
        return self.find(session)

    def set_consent(self, session: str, *, training: bool) -> Session:
        """Give or withdraw consent to train on a session.

        Raises:
            ProtocolError: `no-such-session`.
            StoreError: `store-write`.
        """
        found = self.find(session)
        self._store.sessions.set_consent(found.session, training=training)
        return self.find(session)

    async def forget(self, session: str) -> Mapping[str, int]:
        """Erase everything of a session, also of an open one, and return the number of rows by table.

        Signal that goes on belongs to another session.

        Raises:
            ProtocolError: `no-such-session`.
            StoreError: `erase-pending`: the rows are gone, but a reader still keeps their pages; ask once more, when it
                has ended. `store-write`: nothing was erased.
        """
        async with self._erasing:
            if session not in self._pending:
                self.find(session)
            self._pending.add(session)
            rows = self._erase(SessionId(session))
            await self._scrub(SessionId(session))
            self._pending.discard(session)
            return rows

    async def _scrub(self, session: SessionId) -> None:
        """Overwrite what the rows left behind, beside the loop, and give readers a second to end.

        Raises:
            StoreError: `erase-pending`, `erase-incomplete`.
        """
        waits = 0
        with self._store.scrubbing(session) as step:
            while (done := await asyncio.to_thread(step)) is not None:
                if not done:
                    waits += 1
                    if waits > ERASE_LOOKS:
                        raise erase_pending()
                    await asyncio.sleep(ERASE_LOOK_S)

    def find(self, session: str) -> Session:
        """One session.

        Raises:
            ProtocolError: `no-such-session`.
        """
        found = self._reader.session(SessionId(session))
        if found is None:
            raise ProtocolError(
                "no-such-session",
                f"there is no session {bounded(session, 32)!r} on this device",
                remedy="bedside agent session list",
            )
        return found

    def _reached_ns(self, stream: StreamId) -> int:
        """Where the stream's signal stands; now, where it has been silent for too long."""
        now_ns, last_ns = self._clock.now_ns(), self._store.sessions.last_end_ns(stream)
        return last_ns if last_ns > now_ns - self._gap_ns else now_ns
