"""One sink at work: it reads what waits, sends it, and tries again for ever when the receiver is away.

Invariants:
    * Whatever a sink raises, it is tried again: at growing, jittered distances, or when the receiver wants it.
    * A row that the receiver refuses for good is tried `REFUSED_TRIES` times, then counted and left out. Distances keep
      growing over rows that are refused, until one is taken, so that a receiver that refuses everything costs few rows.
    * Rows of a session that was erased are not sent from then on; what is on its way at that moment is.

Source: DESIGN section 4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from bedside.agent.buffer.deliveries import Delivery
from bedside.agent.buffer.schema import SALVAGE
from bedside.agent.failure import FailureLog, describe
from bedside.agent.health.facts import SinkFacts
from bedside.agent.sinks.kind import AwayError, NotTakenError, Sink, SinkOptions
from bedside.agent.sinks.queue import Batch, Queue
from bedside.agent.sinks.schedule import Schedule
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import BedsideError, StoreError

FIRST_BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 60.0
MAX_RETRY_AFTER_S: Final = 3_600.0
"""A receiver cannot send a sink away for longer."""
REFUSED_TRIES: Final = 3
SEND_TIMEOUT_S: Final = 120.0
"""For a sink that never returns; those of this package have shorter ones of their own."""
CLOSE_TIMEOUT_S: Final = 1.0
PAUSE_PER_ROW_S: Final = 200e-6
"""A few times what a row costs: a backlog takes a third of the interpreter at most, which the samples need as well,
and the end of a sink is heard between."""
_NOTE_S: Final = 0.5
"""Seconds between two words of how far it has come."""
_LOOK_S: Final = 30.0
"""A schedule is looked at so often, in case the clock was set."""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a delivery on demand: rows delivered, rows not, and why the first of them was not."""

    sent: int
    failed: int = 0
    error: str = ""


class Runner:
    """Use in the sink's own loop, but for `facts`, which any thread may read."""

    def __init__(
        self,
        kind: str,
        options: SinkOptions,
        sink: Sink,
        queue: Queue,
        clock: Clock,
        entropy: Entropy,
        *,
        note: Callable[[Delivery], None],
        erased: Collection[str] = frozenset(),
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Prepare.

        Args:
            kind: of the sink.
            options: of the sink.
            sink: delivers.
            queue: of it.
            clock: of the process.
            entropy: for jitter.
            note: hears how far the sink has come, to make it durable.
            erased: sessions that were forgotten, as they are.
            sleep: waits between tries.
        """
        self._options = options
        self._sink = sink
        self._queue = queue
        self._clock = clock
        self._entropy = entropy
        self._note = note
        self._erased = erased
        self._sleep = sleep
        self._schedule = Schedule(options.name, options.every_s, options.at, options.time_zone)
        self._turn = asyncio.Lock()
        self._noted = dict(queue.cursors)
        self._noted_s = 0.0
        self._backoff_s = FIRST_BACKOFF_S
        self._singly = 0
        self._tries = 0
        self._sent_ns = 0
        self._seen = (
            sum(cursor.sent for cursor in queue.cursors.values()),
            sum(cursor.skipped + cursor.refused for cursor in queue.cursors.values()),
        )
        self._delivered_s = clock.monotonic_s()
        self._left_out_s: float | None = None
        self._failed_s: float | None = None
        self._log = FailureLog("sink", options.name)
        self._facts = SinkFacts(options.name, kind, options.mode, "idle")
        self._tell("idle", waiting=0)

    @property
    def facts(self) -> SinkFacts:
        """How it does."""
        age_ms = max(0, (self._clock.now_ns() - self._sent_ns) // 1_000_000) if self._sent_ns else None
        facts, now_s, failed_s = self._facts, self._clock.monotonic_s(), self._failed_s
        return replace(
            facts,
            last_sent_age_ms=age_ms,
            last_error_age_ms=max(0, round((now_s - failed_s) * 1000)) if failed_s is not None else None,
            stalled_s=0.0 if facts.state == "idle" else now_s - self._delivered_s,
            left_out_age_s=None if self._left_out_s is None else now_s - self._left_out_s,
        )

    async def run(self) -> None:
        """Work until cancelled; what was acknowledged until then is noted."""
        try:
            while True:
                await self._wait_until_due()
                await self._work_off()
                if self._options.mode == "scheduled":
                    self._queue.done(self._clock.now_ns())
                    self._note_all(now=True)
        finally:
            self._note_all(now=True)
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._sink.close()

    async def send_now(self, since_ns: int | None = None) -> Sent:
        """Deliver what waits, or again what is stored from a time on; nothing is tried twice."""
        failure: Exception | None = None
        left = 0
        async with self._turn:
            before = self._count()
            try:
                if since_ns is None:
                    await self._drain()
                else:
                    for batch in self._queue.since(since_ns, self._sink.batch_rows):
                        failed, refusal = await self._send_again(batch)
                        left, failure = left + failed + batch.unreadable, failure or refusal
                        if batch.unreadable:
                            failure = failure or _unreadable(batch)
                        await self._sleep(PAUSE_PER_ROW_S * len(batch.items))
            except Exception as error:  # noqa: BLE001 - whoever asked is told
                failure = error
                self._failed(error)
                left += self._queue.waiting() if since_ns is None else 1
            self._tell("idle" if failure is None else "waiting", waiting=self._queue.waiting())
            self._note_all(now=True)
            return Sent(self._count() - before, left, "" if failure is None else describe(failure))

    async def _send_again(self, batch: Batch) -> tuple[int, Exception | None]:
        """Send a batch, or its rows one by one; how many are not taken, and why the first is not."""
        try:
            await self._send(batch)
        except NotTakenError as error:
            if len(batch.items) == 1:
                self._failed(error)
                return 1, error
        else:
            return 0, None
        failures = [await self._send_again(one) for one in batch.singly()]
        return sum(failed for failed, _ in failures), next((why for _, why in failures if why is not None), None)

    def _count(self) -> int:
        return sum(cursor.sent for cursor in self._queue.cursors.values())

    def _size(self) -> int:
        return 1 if self._singly > 0 else self._sink.batch_rows

    async def _wait_until_due(self) -> None:
        mode = self._options.mode
        if mode == "demand":
            while True:  # only `send_now` sends
                await self._look()
        elif mode == "scheduled":
            if not self._done_ns():
                self._queue.done(self._clock.now_ns())
                self._note_all(now=True)
            while (wait_s := (self._schedule.next_ns(self._done_ns()) - self._clock.now_ns()) / 1e9) > 0:
                await self._look(wait_s)
        else:
            await self._sleep(self._options.within_s)

    async def _look(self, wait_s: float = _LOOK_S) -> None:
        """Wait for a while, and say how much waits."""
        with suppress(BedsideError):
            self._tell("idle", waiting=self._queue.waiting())
        await self._sleep(min(wait_s, _LOOK_S))

    def _done_ns(self) -> int:
        """When the schedule was last worked off; not in the future, where a wrong clock has left it."""
        return min(self._clock.now_ns(), max(cursor.done_ns for cursor in self._queue.cursors.values()))

    async def _work_off(self) -> None:
        """Deliver all that waits, however often it must be tried."""
        while True:
            try:
                async with self._turn:
                    await self._drain()
            except Exception as error:  # noqa: BLE001 - a sink may fail in any way; it is tried again
                self._failed(error)
                await self._sleep(self._next_backoff_s(error))
            else:
                return

    async def _drain(self) -> None:
        while (batch := self._queue.next_batch(self._size())) is not None:
            self._singly = max(0, self._singly - len(batch.items))
            try:
                await self._send(batch)
            except NotTakenError as error:
                self._not_taken(batch, error)
            self._note_all()
            await self._sleep(PAUSE_PER_ROW_S * len(batch.items))
        self._note_all()
        self._tell("idle", waiting=0)

    async def _send(self, batch: Batch) -> None:
        self._tell("sending")
        batch = batch.without(self._erased)
        if batch.items:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._sink.send(batch.items)
            self._backoff_s, self._tries = FIRST_BACKOFF_S, 0
        if batch.items:
            self._log.recovered()
        self._queue.sent(batch, self._clock.now_ns())
        if batch.unreadable:
            self._failed(_unreadable(batch))

    def _not_taken(self, batch: Batch, error: NotTakenError) -> None:
        """Send the rows of a batch one by one; leave out one that was refused often enough.

        Raises:
            NotTakenError: it is to be tried again.
        """
        if len(batch.items) > 1:
            self._singly = len(batch.items)
            return
        self._tries += 1
        if self._tries < REFUSED_TRIES:
            self._singly += 1
            raise error
        self._queue.refused(batch)
        self._tries = 0
        self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._failed_s = self._clock.monotonic_s()
        self._log.failed(error)
        waiting = None
        with suppress(BedsideError):
            waiting = self._queue.waiting()
        self._tell("waiting", waiting=waiting, error=describe(error))

    def _next_backoff_s(self, error: Exception) -> float:
        """At least half of what the distance has grown to, or what the receiver asks for."""
        share = int.from_bytes(self._entropy.token_bytes(2), "big") / 0xFFFF
        backoff_s, self._backoff_s = self._backoff_s, min(2 * self._backoff_s, MAX_BACKOFF_S)
        asked_s = error.retry_after_s if isinstance(error, AwayError) else 0.0
        return max(backoff_s * (0.5 + share / 2), min(asked_s, MAX_RETRY_AFTER_S))

    def _note_all(self, *, now: bool = False) -> None:
        now_s = self._clock.monotonic_s()
        if not now and now_s - self._noted_s < _NOTE_S:
            return
        self._noted_s = now_s
        for what, cursor in self._queue.cursors.items():
            if cursor != self._noted[what]:
                self._noted[what] = cursor
                self._note(cursor)

    def _look_for_progress(self, state: str) -> None:
        """Note when it last delivered something, or had nothing to deliver, and when it last left something out."""
        cursors, now_s = self._queue.cursors.values(), self._clock.monotonic_s()
        sent, left_out = sum(one.sent for one in cursors), sum(one.skipped + one.refused for one in cursors)
        if state == "idle" or sent > self._seen[0]:
            self._delivered_s = now_s
        if left_out > self._seen[1]:
            self._left_out_s = now_s
        self._seen = sent, left_out

    def _tell(self, state: str, *, waiting: int | None = None, error: str = "") -> None:
        cursors = self._queue.cursors.values()
        before = self._facts
        self._sent_ns = max(cursor.sent_ns for cursor in cursors)
        self._look_for_progress(state)
        self._facts = replace(
            before,
            state=state,
            sent=sum(cursor.sent for cursor in cursors),
            skipped=sum(cursor.skipped for cursor in cursors),
            refused=sum(cursor.refused for cursor in cursors),
            waiting=before.waiting if waiting is None else waiting,
            errors=before.errors + bool(error),
            last_error=error or before.last_error,
        )


def _unreadable(batch: Batch) -> StoreError:
    return StoreError(
        "sink-row-unreadable",
        f"{batch.unreadable} of the {batch.what} cannot be read in the buffer, and are left out",
        remedy=SALVAGE,
    )
