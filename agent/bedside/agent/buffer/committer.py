"""The group commit beside the agent's loop: one thread that waits for the disk, so that no decision does.

Invariants:
    * At most one batch is under way. The loop hands it over and settles it; the thread writes it, and nothing else.
    * Acknowledged is what was settled: its commit has returned. What failed waits again.
    * A commit that does not return is told of after `PATIENCE_S`. From then on nobody waits for its turn, and what
      arrives waits in memory, up to the bound.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from bedside.agent.buffer.group import Batch
from bedside.agent.buffer.store import BufferStore
from bedside.agent.buffer.turn import PATIENCE_S, disk_hangs
from bedside.core.clock import Clock


class _Commit(NamedTuple):
    batch: Batch
    began_s: float
    written: Future[None]


class Committer:
    """Commits what is due in one buffer. Use from the thread that owns the buffer."""

    def __init__(self, buffer: BufferStore, clock: Clock) -> None:
        self._buffer = buffer
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._commit: _Commit | None = None

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
        batch = self._buffer.take_batch()
        if batch is not None:
            written = self._thread.submit(self._buffer.group.write, batch)
            self._commit = _Commit(batch, self._clock.monotonic_s(), written)
        return rows

    def close(self) -> None:
        """End the thread, after the buffer was closed, which commits everything."""
        self._thread.shutdown(wait=False)

    def _look(self, commit: _Commit) -> None:
        if self._clock.monotonic_s() - commit.began_s >= PATIENCE_S:
            self._buffer.database.turn.give_up()
            raise disk_hangs()

    def _settle(self, commit: _Commit) -> int:
        self._commit = None
        try:
            commit.written.result()
        finally:
            rows = self._buffer.group.settle(commit.batch)
        return rows
