"""Sources under a supervisor that restarts them at once, for tests of what reaches a consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from bedside.agent.sources.supervisor import SourceHealth, Supervisor
from bedside.core.samples import Event, Source
from bedside.service.platform import SystemClock


@asynccontextmanager
async def running(*sources: Source) -> AsyncIterator[tuple[list[Event], dict[str, SourceHealth]]]:
    """What arrives of the sources, as it comes, and their health by name."""
    events: list[Event] = []
    supervisor = Supervisor(sources, events.append, SystemClock(), sleep=lambda _s: asyncio.sleep(0.01))
    task = asyncio.create_task(supervisor.run())
    try:
        yield events, supervisor.health
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object]) -> None:
    """Return when something is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
