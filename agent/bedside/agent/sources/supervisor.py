"""Runs every source apart: one that fails is restarted with back-off and never disturbs the others.

An error of the consumer is not the source's: it ends the supervisor, so that nothing is lost in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from bedside.agent.sources.kind import SourceGauge
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError
from bedside.core.samples import Block, Event, Record, Source, Unmapped
from bedside.service.text import bounded

FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 30.0
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
        self._sources = sources
        self._consume = consume
        self._clock = clock
        self._sleep = sleep
        known = gauges or {}
        self.health = {
            source.name: SourceHealth(source.name, gauge=known.get(source.name) or SourceGauge()) for source in sources
        }

    async def run(self) -> None:
        """Run until every source has ended.

        Raises:
            ExceptionGroup: what the consumer raised.
        """
        async with asyncio.TaskGroup() as tasks:
            for source in self._sources:
                tasks.create_task(self._keep_running(source), name=f"source {source.name}")

    async def _keep_running(self, source: Source) -> None:
        health = self.health[source.name]
        backoff_s = FIRST_BACKOFF_S
        while True:
            started_s = self._clock.monotonic_s()
            health.state = SourceState.RUNNING
            failure = await self._run_once(source, health)
            if failure is None:
                health.state = SourceState.ENDED
                return
            health.state = SourceState.WAITING
            health.errors += 1
            health.last_error = _describe(failure)
            if self._clock.monotonic_s() - started_s >= STABLE_S:
                backoff_s = FIRST_BACKOFF_S
            await self._sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)

    async def _run_once(self, source: Source, health: SourceHealth) -> Exception | None:
        """Run a source to its end; return what it failed with."""
        events = source.events()
        async with aclosing(events):  # type: ignore[type-var]  # every source is an async generator
            taken = 0
            while True:
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    return None
                except Exception as error:  # noqa: BLE001 - a source may fail in any way; the others go on
                    return error
                if isinstance(event, Unmapped) and event.source != source.name:
                    event = replace(
                        event, source=source.name
                    )  # rows of the quarantine are bounded by what is configured
                self._note(event, health)
                self._consume(event)
                taken += 1
                if taken % _EVENTS_IN_A_ROW == 0:
                    await asyncio.sleep(0)

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


def _describe(error: Exception) -> str:
    text = error.diagnostics() if isinstance(error, BedsideError) else f"{type(error).__name__}: {error}"
    return bounded(text)
