"""The group commit beside the agent's loop: one thread that waits for the disk, so that no decision does.

Invariants:
    * At most one batch is under way. The loop hands it over and settles it; the thread writes it, and nothing else.
    * Acknowledged is what was settled: its commit has returned. What failed waits again.
    * A commit that does not return is told of after `PATIENCE_S`. From then on nobody waits for its turn, and what
      arrives waits in memory, up to the bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from bedside.agent.buffer.group import Batch
from bedside.agent.buffer.store import BufferStore
from bedside.agent.buffer.turn import PATIENCE_S, disk_hangs
from bedside.core.clock import Clock
from bedside.core.ids import StreamId


class _Commit(NamedTuple):
    batch: Batch
    began_s: float
    written: Future[None]
    awaited: list[asyncio.Future[None]]


class Committer:
    """Commits what is due in one buffer. Use from the thread that owns the buffer."""

    def __init__(self, buffer: BufferStore, clock: Clock) -> None:
        self._buffer = buffer
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._commit: _Commit | None = None
        self._awaited: list[asyncio.Future[None]] = []

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
        rows = 0
        if self._commit is not None:
            if self.busy:
                self._look(self._commit)
                return 0
            rows = self._settle(self._commit)
        batch = self._buffer.take_batch(now=bool(self._awaited))
        if batch is not None:
            written = self._thread.submit(self._buffer.group.write, batch)
            self._commit = _Commit(batch, self._clock.monotonic_s(), written, self._awaited)
            self._awaited = []
        elif not self._buffer.group.waiting:
            _tell(self._awaited)  # somebody else has committed it
            self._awaited = []
        return rows

    async def durable(self, streams: Collection[StreamId]) -> None:
        """Return when all that the buffer has taken of these streams until now is on the disk.

        The group commit is brought forward for it, to the next `flush_due`. It does not return while the disk refuses.
        """
        self._buffer.close_parts(streams)
        waiter = asyncio.get_running_loop().create_future()
        self._awaited.append(waiter)
        await waiter

    def close(self) -> None:
        """End the thread, after the buffer was closed, which commits everything."""
        self._thread.shutdown(wait=False)

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
        self._awaited = self._awaited[len(commit.awaited) :]
        _tell(commit.awaited)
        return rows


def _tell(awaited: list[asyncio.Future[None]]) -> None:
    for waiter in awaited:
        if not waiter.done():  # its source may have been ended meanwhile
            waiter.set_result(None)
