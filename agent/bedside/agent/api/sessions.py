"""What people and programs ask about sessions, answered beside the store's one writer.

A session that is opened or closed by hand begins or ends where the stream's signal stands: everything that has arrived
belongs to the session before, everything that arrives later to the one after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

from bedside.agent.buffer.erasure import erase_pending
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Session
from bedside.agent.buffer.sessions import BY_HAND
from bedside.agent.buffer.store import BufferStore
from bedside.agent.naming import find_session, find_stream
from bedside.agent.trusted_time import YEAR_NS
from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.ids import SessionId, StreamId, check_id
from bedside.service.text import bounded

DEFAULT_SESSIONS: Final = 1_000
MAX_SESSIONS: Final = 10_000
"""Sessions of one answer: some 100 bytes each."""

ERASE_LOOK_S: Final = 0.05
ERASE_LOOKS: Final = 20
"""Pauses in which an erasure waits for readers to end, a second in all."""


class Now(Protocol):
    """What gives the time."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch, UTC. May raise RefusedError `clock-implausible`."""


class SessionCalls:
    """Opens, closes, lists and erases. Every change is durable when its method returns."""

    def __init__(
        self,
        store: BufferStore,
        reader: BufferReader,
        clock: Now,
        gap_s: float,
        erase: Callable[[SessionId], Mapping[str, int]] | None = None,
        configured: Collection[str] = (),
        unlearn: Callable[[SessionId], object] = lambda _: None,
    ) -> None:
        """Work on an open store.

        Args:
            store: the writer.
            reader: of the same file.
            clock: gives the time where a stream is silent.
            gap_s: silence that ends a session, seconds.
            erase: deletes a session from the whole device, and leaves the pages of its rows to be overwritten; absent =
                from the store, where there is nothing else.
            configured: streams that the configuration names, whether anything of them is stored or not.
            unlearn: takes back what the device has learnt from a session whose consent is withdrawn.
        """
        self._unlearn = unlearn
        self._store = store
        self._reader = reader
        self._clock = clock
        self._gap_ns = round(gap_s * 1e9)
        self._erase = erase or store.delete
        self._erasing = asyncio.Lock()
        self._configured = configured
        self._pending: set[SessionId] = set()

    def newest(self, stream: str, limit: int) -> list[Session]:
        """The newest sessions of a stream, or of all where it is empty, in the order in which they were opened."""
        name = StreamId(check_id(stream, "stream")) if stream else None
        return self._reader.sessions(name, newest=min(limit or DEFAULT_SESSIONS, MAX_SESSIONS))

    def open(self, stream: str, *, consent_training: bool | None, origin: str, new_stream: bool = False) -> Session:
        """Open a session, and close the one before.

        Args:
            stream: one that is configured or stored.
            consent_training: None to leave it at what holds for the stream.
            origin: `cli` or `api`.
            new_stream: it may be one that is yet to come.

        Raises:
            MalformedError: `bad-id` or `bad-origin`.
            ProtocolError: `no-such-stream` or `sessions-full`.
            RefusedError: `clock-implausible`.
            StoreError: `store-write`.
        """
        name = StreamId(check_id(stream, "stream"))
        if origin not in BY_HAND:
            raise MalformedError("bad-origin", f"{bounded(origin, 40)!r} is no origin: {' or '.join(BY_HAND)}")
        if not new_stream and self._store.ahead.current(name) is None:
            find_stream(
                self._reader, name, self._configured, remedy="for one that is yet to come: --new (new_stream=True)"
            )
        self._store.ahead.settle(now=True)  # what the disk refused before comes first
        self._store.quota.check_sessions()
        session = self._store.sessions.open(name, self._reached_ns(name), origin, consent_training=consent_training)
        return self.find(session)

    def close(self, stream: str) -> Session:
        """Close the stream's session.

        Raises:
            MalformedError: `bad-id`.
            ProtocolError: `no-open-session`.
            RefusedError: `clock-implausible`.
            StoreError: `store-write`.
        """
        name = StreamId(check_id(stream, "stream"))
        self._store.ahead.settle(now=True)
        session = self._store.sessions.close(name, self._reached_ns(name))
        if session is None:
            raise ProtocolError(
                "no-open-session",
                f"no session of stream {name} is open",
                remedy="bedside agent session list DIRECTORY",
            )
        return self.find(session)

    def set_consent(self, session: str, *, training: bool) -> Session:
        """Give or withdraw consent to train on a session; what the device learnt from it is taken back.

        Raises:
            ProtocolError: `no-such-session`.
            StoreError: `store-write`.
        """
        found = self.find(session)
        if not training:
            self._unlearn(found.session)
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
            name = SessionId(session)
            if name not in self._pending:
                name = self.find(session).session
            self._pending.add(name)
            rows = self._erase(name)
            await self._scrub(name)
            self._pending.discard(name)
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
        """One session, by its id or the beginning of it. Raises as `find_session`."""
        return find_session(self._reader, session)

    def _reached_ns(self, stream: StreamId) -> int:
        """Where the stream's signal stands; now, where it has been silent for too long."""
        now_ns = self._clock.now_ns()
        last_ns = self._store.sessions.last_end_ns(stream, now_ns + YEAR_NS)
        return last_ns if last_ns > now_ns - self._gap_ns else now_ns
