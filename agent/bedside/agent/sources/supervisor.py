"""Runs every source apart: one that fails is restarted with back-off and never disturbs the others.

An error of the consumer is not the source's: it ends the supervisor, so that nothing is lost in silence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from bedside.agent.failure import FailureLog, describe
from bedside.agent.sources.checked import EventCheck
from bedside.agent.sources.kind import SourceGauge
from bedside.core.clock import Clock
from bedside.core.samples import Block, Event, Record, Source, Unmapped
from bedside.service.logs import event

_LOGGER = logging.getLogger(__name__)

FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 30.0
END_S: Final = 5.0
"""Seconds that a source has to end when it is taken out."""
STABLE_S: Final = 60.0
"""A source that ran this long starts again with the first back-off."""

_EVENTS_IN_A_ROW: Final = 32
"""After which the others have their turn, however many events a source has at once."""

Sleep = Callable[[float], Awaitable[None]]


class SourceState(Enum):
    """What a source is doing."""

    RUNNING = "running"
    WAITING = "waiting"
    """Failed; it starts again after a back-off."""
    ENDED = "ended"


@dataclass(slots=True)
class SourceHealth:
    """Counters of one source since the process started.

    Attributes:
        last_seen_ns: wall time of the last event; 0 before the first.
        values: in records.
        unmapped: readings that it could not turn into values.
        gauge: what it tells of itself.
        errors: times that it failed.
        last_error: code, sentence and remedy of the last failure.
        last_error_monotonic_s: when that was.
    """

    name: str
    state: SourceState = SourceState.RUNNING
    last_seen_ns: int = 0
    last_seen_monotonic_s: float = 0.0
    blocks: int = 0
    samples: int = 0
    records: int = 0
    values: int = 0
    marks: int = 0
    unmapped: int = 0
    gauge: SourceGauge = field(default_factory=SourceGauge)
    errors: int = 0
    last_error: str = ""
    last_error_monotonic_s: float = 0.0


class Supervisor:
    """Runs sources and hands their events to one consumer.

    Attributes:
        health: by the name of the source.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        consume: Callable[[Event], None],
        clock: Clock,
        *,
        gauges: Mapping[str, SourceGauge] | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._sources = list(sources)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()
        self._consume = consume
        self._clock = clock
        self._sleep = sleep
        known = gauges or {}
        self.health = {
            source.name: SourceHealth(source.name, gauge=known.get(source.name) or SourceGauge()) for source in sources
        }

    async def run(self, *, for_ever: bool = False) -> None:
        """Run until every source has ended; `for_ever` waits for others that may come.

        Raises:
            ExceptionGroup: what the consumer raised.
        """
        async with self._group:
            for source in self._sources:
                self._begin(source)
            if for_ever:
                await asyncio.Event().wait()

    def add(self, source: Source, gauge: SourceGauge) -> None:
        """Run another source, beside those that run."""
        self.health[source.name] = SourceHealth(source.name, gauge=gauge)
        self._begin(source)

    async def remove(self, name: str) -> bool:
        """End a source; whether it has ended, and has put away what it holds, within `END_S`."""
        task = self._tasks[name]
        task.cancel()
        if not (await asyncio.wait({task}, timeout=END_S))[0]:
            return False
        del self._tasks[name], self.health[name]
        return True

    def _begin(self, source: Source) -> None:
        self._tasks[source.name] = self._group.create_task(self._keep_running(source), name=f"source {source.name}")

    async def _keep_running(self, source: Source) -> None:
        health = self.health[source.name]
        backoff_s = FIRST_BACKOFF_S
        log = FailureLog("source", source.name)
        while True:
            started_s = self._clock.monotonic_s()
            health.state = SourceState.RUNNING
            failure = await self._run_once(source, health, log)
            if failure is None:
                health.state = SourceState.ENDED
                return
            health.state = SourceState.WAITING
            health.errors += 1
            health.last_error = describe(failure)
            health.last_error_monotonic_s = self._clock.monotonic_s()
            log.failed(failure)
            if self._clock.monotonic_s() - started_s >= STABLE_S:
                backoff_s = FIRST_BACKOFF_S
            await self._sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)

    async def _run_once(self, source: Source, health: SourceHealth, log: FailureLog) -> BaseException | None:
        """Run a source to its end; return what it failed with."""
        check = EventCheck()
        events: AsyncIterator[object] | None = None
        taken = 0
        try:
            while True:
                try:
                    events = source.events() if events is None else events
                    arrived = check.checked(await anext(events))
                except StopAsyncIteration:
                    return None
                except (Exception, SystemExit, asyncio.CancelledError) as error:
                    if not _is_its_own(error):
                        raise
                    return error
                if isinstance(arrived, Unmapped) and arrived.source != source.name:
                    # rows of the quarantine are bounded by what is configured
                    arrived = replace(arrived, source=source.name)
                self._note(arrived, health)
                log.recovered()
                self._consume(arrived)
                taken += 1
                if taken % _EVENTS_IN_A_ROW == 0:
                    await asyncio.sleep(0)
        finally:
            await _end(events)

    def _note(self, event: Event, health: SourceHealth) -> None:
        health.last_seen_ns = self._clock.now_ns()
        health.last_seen_monotonic_s = self._clock.monotonic_s()
        if isinstance(event, Block):
            health.blocks += 1
            health.samples += len(event.values)
        elif isinstance(event, Record):
            health.records += 1
            health.values += len(event.values)
        elif isinstance(event, Unmapped):
            health.unmapped += event.count
        else:
            health.marks += 1


def _is_its_own(error: BaseException) -> bool:
    """Whether a source has failed by itself, in any way, and is not just being ended.

    A library that ends a task of its own cancels whoever waits for it; one that calls `sys.exit` means its own end.
    """
    task = asyncio.current_task()
    return not isinstance(error, asyncio.CancelledError) or task is None or not task.cancelling()


async def _end(events: object) -> None:
    """Let a source put away what it holds; one that fails at that has failed already, or has ended."""
    close = getattr(events, "aclose", None)
    if close is None:
        return
    try:
        await close()
    except Exception as error:  # noqa: BLE001 - it is the source's, and nobody else's
        event(_LOGGER, "source-end-failed", level=logging.WARNING, reason=type(error).__name__)
