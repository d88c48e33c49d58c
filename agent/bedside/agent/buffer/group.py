"""The group commit: what waits becomes durable together, in this thread or in another one.

Invariants:
    * A batch is written once, by whoever comes first: the thread that it was given to, or the owner, who then waits for
      nobody to begin it.
    * While a batch is under way nobody but `write` touches it. What arrives meanwhile waits for the next one, and what
      could not be written goes before it: the order stays.
    * `write` holds the database's turn from its first transaction to its last. The owner settles a batch when `write`
      has returned, or while it holds the turn itself, never else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bedside.agent.buffer.erasure import Scrubber
from bedside.agent.buffer.inserter import Inserter
from bedside.agent.buffer.room import Room
from bedside.agent.buffer.turn import Turn
from bedside.agent.buffer.waiting import Waiting
from bedside.core.errors import StoreError
from bedside.core.ids import StreamId

_COMMIT_BYTES: Final = 512 << 10
"""Of rows in one transaction: what waited for long is written in several."""


@dataclass(slots=True, eq=False)
class Batch:
    """What one commit is to make durable, in a transaction or a few.

    Attributes:
        waiting: what of it is not durable yet.
        rows: of raw data that are.
        error: why the rest is not; None while nothing has failed.
        ended: whether nobody will write it any more.
    """

    waiting: Waiting
    rows: int = 0
    error: StoreError | None = None
    ended: bool = False

    @property
    def written(self) -> bool:
        """Whether all of it is durable."""
        return not self.waiting


class GroupCommit:
    """What waits in one buffer, and the one batch of it that may be under way. All but `write` is its owner's.

    Attributes:
        waiting: for the next batch.
        under_way: that was begun and not settled.
    """

    def __init__(
        self,
        turn: Turn,
        room: Room,
        inserter: Inserter,
        scrubber: Scrubber,
        lost: Callable[[StreamId], None],
    ) -> None:
        self._turn = turn
        self._room = room
        self._inserter = inserter
        self._scrubber = scrubber
        self._lost = lost
        self.waiting = Waiting(lost)
        self.under_way: Batch | None = None

    def begin(self) -> Batch:
        """Take all that waits, while nothing is under way."""
        batch, self.waiting = Batch(self.waiting), Waiting(self._lost)
        self.under_way = batch
        return batch

    def write(self, batch: Batch) -> None:
        """Commit a batch, in any thread; a second call waits for the first one and does nothing.

        Raises:
            StoreError: `store-write`, when the disk hangs. Its other failures are told by `settle`.
        """
        with self._turn:
            if batch.ended:
                return
            try:
                self._write(batch)
            except StoreError as error:
                batch.error = error
            finally:
                batch.ended = True

    def settle(self, batch: Batch) -> int:
        """Take back what of a batch is not durable, before all that came later; return its rows that are.

        Raises:
            StoreError: what its commit failed with; what it could not write waits.
        """
        if self.under_way is batch:
            self.under_way, batch.ended = None, True
            if batch.waiting:
                batch.waiting.follow(self.waiting)
                self.waiting = batch.waiting
        if batch.error is not None:
            raise batch.error
        return batch.rows

    def commit(self) -> int:
        """Commit all that waits in this thread, after what is under way; return the rows that are now durable.

        Raises:
            StoreError: `store-write`; everything still waits.
        """
        with self._turn:
            rows = self.finish()
            batch = self.begin()
            try:
                self.write(batch)
            finally:
                rows += self.settle(batch)
            return rows

    def finish(self) -> int:
        """Wait for the batch that is under way, and settle it; what failed waits to be tried again.

        Raises:
            StoreError: `store-write`, when the disk hangs; the batch is still under way.
        """
        with self._turn:
            batch = self.under_way
            if batch is None:
                return 0
            try:
                self.write(batch)
            finally:
                rows, batch.error = batch.rows, None  # told by whoever tries again
                self.settle(batch)
            return rows

    def _write(self, batch: Batch) -> None:
        waiting = batch.waiting
        while waiting:
            rows = waiting.first(_COMMIT_BYTES)
            self._room.run("signal", lambda tx, rows=rows: self._inserter.insert(tx, rows, waiting))  # type: ignore[misc]  # the default binds the loop value
            waiting.done(len(rows))
            batch.rows += len(rows)
        if self._scrubber.pending and not self._scrubber.taken:
            self._scrubber.finish()
