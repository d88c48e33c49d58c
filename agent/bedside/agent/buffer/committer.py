"""The group commit beside the agent's loop: one thread that waits for the disk, so that no decision does.

Invariants:
    * At most one batch is under way. The loop hands it over and settles it; the thread writes it, and nothing else.
    * Acknowledged is what was settled: its commit has returned. What failed waits again.
    * A commit that does not return is told of after `PATIENCE_S`. From then on nobody waits for its turn, and what
      arrives waits in memory, up to the bound.
    * Who waits for a commit is answered by one that began after the wait did, and that holds all there was: not by one
      that failed and was written by somebody else in part, nor while a session is known from memory only.
    * Who waits is waited for by nobody's clock: the commit begins with the next turn of the loop, together with all
      others that wait by then, and is settled when it has returned. A failure is still told by `flush_due`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from bedside.agent.buffer.group import Batch
from bedside.agent.buffer.store import BufferStore
from bedside.agent.buffer.turn import PATIENCE_S, disk_hangs
from bedside.core.clock import Clock
from bedside.core.errors import StoreError, UnavailableError
from bedside.core.ids import StreamId


class _Waiter(NamedTuple):
    streams: Collection[StreamId]
    told: asyncio.Future[None]


class _Commit(NamedTuple):
    batch: Batch
    began_s: float
    written: Future[None]
    awaited: list[_Waiter]


class Committer:
    """Commits what is due in one buffer. Use from the thread that owns the buffer."""

    def __init__(self, buffer: BufferStore, clock: Clock) -> None:
        self._buffer = buffer
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._commit: _Commit | None = None
        self._awaited: list[_Waiter] = []
        self._hurries = False
        self._failure: StoreError | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether the thread has a batch."""
        return self._commit is not None and not self._commit.written.done()

    def flush_due(self) -> int:
        """Take note of the commit that has ended, and begin the one that is due; never waits for the disk.

        Returns the rows of raw data that are now durable.

        Raises:
            StoreError: `store-write`: what a commit failed with, whose rows wait again; or it does not return.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        rows = 0
        if self._commit is not None:
            if self.busy:
                self._look(self._commit)
                return 0
            rows = self._settle(self._commit)
        self._awaited = [waiter for waiter in self._awaited if not waiter.told.done()]  # the others were cancelled
        batch = self._buffer.take_batch(now=bool(self._awaited))
        if batch is not None:
            written = self._thread.submit(self._buffer.group.write, batch)
            self._commit = _Commit(batch, self._clock.monotonic_s(), written, self._awaited)
            if self._awaited:
                self._hurry(written)
            self._awaited = []
        elif not self._buffer.group.waiting:
            self._tell(self._awaited)  # somebody else has committed it
        return rows

    async def committed(self, streams: Collection[StreamId]) -> None:
        """Return when a commit has returned that holds all that the buffer has of these streams now.

        The group commit is brought forward for it, to the loop's next turn. It does not return while the disk refuses,
        nor while one of the streams is in a session that the disk has not taken.

        Raises:
            UnavailableError: `agent-stops`.
        """
        if self._closed:
            raise _stops()
        self._buffer.close_parts(streams)
        waiter = _Waiter(streams, asyncio.get_running_loop().create_future())
        self._awaited.append(waiter)
        self._hurry()
        await waiter.told

    def close(self) -> None:
        """End the thread, after the buffer was closed, which commits everything; who still waits is not answered."""
        self._closed = True
        self._thread.shutdown(wait=False)
        commit, self._commit = self._commit, None
        for waiter in (*(commit.awaited if commit is not None else ()), *self._awaited):
            if not waiter.told.done():
                waiter.told.set_exception(_stops())
        self._awaited = []

    def _hurry(self, after: Future[None] | None = None) -> None:
        """Do what `flush_due` does with the loop's next turn, or with the first one after the thread's work."""
        loop = asyncio.get_running_loop()
        if after is not None:

            def wake(_: Future[None]) -> None:
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._flush_now)

            after.add_done_callback(wake)
        elif not self._hurries:
            self._hurries = True
            loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._hurries = False
        if self._closed or self.busy or self._failure is not None:
            return
        try:
            self.flush_due()
        except StoreError as error:
            self._failure = error

    def _look(self, commit: _Commit) -> None:
        if self._clock.monotonic_s() - commit.began_s >= PATIENCE_S:
            self._buffer.database.turn.give_up()
            raise disk_hangs()

    def _settle(self, commit: _Commit) -> int:
        self._commit = None
        self._awaited = commit.awaited + self._awaited  # until it is known to have succeeded
        try:
            commit.written.result()
        finally:
            rows = self._buffer.group.settle(commit.batch)
        if commit.batch.written:
            self._awaited = self._awaited[len(commit.awaited) :]
            self._tell(commit.awaited)
        return rows

    def _tell(self, waiters: list[_Waiter]) -> None:
        """Answer those whose streams are in sessions on the disk; the others go on waiting."""
        ahead = self._buffer.ahead
        still = [waiter for waiter in waiters if any(ahead.waits(stream) for stream in waiter.streams)]
        for waiter in waiters:
            if waiter not in still and not waiter.told.done():
                waiter.told.set_result(None)
        self._awaited = still + [waiter for waiter in self._awaited if waiter not in waiters]


def _stops() -> UnavailableError:
    return UnavailableError("agent-stops", "the agent stops: what was not acknowledged is sent again later")
