"""A real agent in a process of its own, under load: `python loaded.py DIRECTORY RECORD-STREAMS SECONDS OUT`.

It is `bedside.agent.daemon.Agent` with its configured sources, and streams of records beside them, for which the
configuration has no kind yet. Every event's arrival is noted before the agent sees it. It ends when its sources have.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bedside.agent import daemon
from bedside.agent.buffer.part import end_ns
from bedside.agent.config import load_agent_config
from bedside.agent.daemon import Agent
from bedside.agent.sources.supervisor import SourceState
from bedside.core.clock import Clock
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, Record, Source
from bedside.service.platform import SystemClock, SystemEntropy
from device.signals import UNITS, vital_signs

Arrivals = list[tuple[int, int, float]]
"""(source, end of the block or time of the record in ns, monotonic seconds)."""


class VitalSigns:
    """A `Source` of one record per second."""

    def __init__(self, number: int, seconds: int, clock: Clock) -> None:
        self.name = f"vitals-{number}"
        self._number = number
        self._seconds = seconds
        self._clock = clock

    async def events(self) -> AsyncIterator[Block | Record | Mark]:
        """Yield the records of so many seconds, each when it is due."""
        began_s, began_ns = self._clock.monotonic_s(), self._clock.now_ns()
        for second in range(self._seconds):
            await asyncio.sleep(max(0.0, began_s + second - self._clock.monotonic_s()))
            values = vital_signs(self._number, second)
            yield Record(StreamId(self.name), began_ns + second * 1_000_000_000, values, UNITS)


class Noted:
    """A source whose events are noted as they arrive."""

    def __init__(self, source: Source, number: int, arrivals: Arrivals) -> None:
        self.name = source.name
        self._source = source
        self._number = number
        self._arrivals = arrivals

    async def events(self) -> AsyncIterator[Block | Record | Mark]:
        """Yield what the source yields."""
        async for event in self._source.events():
            if not isinstance(event, Mark):
                at_ns = end_ns(event) if isinstance(event, Block) else event.time_ns
                self._arrivals.append((self._number, at_ns, time.monotonic()))
            yield event


class Loaded(Agent):
    """An agent with streams of records beside its configured sources."""

    record_streams = 0
    seconds = 0
    arrivals: Arrivals = []  # noqa: RUF012  # one agent per process
    running: Loaded

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        Loaded.running = self

    def _built(self, *arguments: Any) -> list[Source]:
        vitals = [VitalSigns(number, self.seconds, self._clock) for number in range(self.record_streams)]
        return [Noted(one, number, self.arrivals) for number, one in enumerate([*super()._built(*arguments), *vitals])]

    def ended(self) -> bool:
        """Whether every source has delivered all it has."""
        return all(one.state is SourceState.ENDED for one in self._supervisor.health.values())

    def names(self) -> list[str]:
        """The sources in their order."""
        return list(self._supervisor.health)


def written_bytes() -> int:
    """What this process has sent to the disk so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


async def run(directory: Path, out: Path) -> None:
    """Run until every source has ended and all is committed; write down what it took."""
    daemon.Agent = Loaded  # type: ignore[misc]  # what `run_agent` runs
    clock, entropy = SystemClock(), SystemEntropy()
    task = asyncio.create_task(
        daemon.run_agent(directory, load_agent_config(directory), clock, entropy, version("bedside"))
    )
    deadline_s = time.monotonic() + 60
    while not Loaded.arrivals and not task.done():
        if time.monotonic() > deadline_s:
            raise SystemExit("no source has delivered anything within a minute")
        await asyncio.sleep(0.02)
    if task.done():
        await task
    agent = Loaded.running
    began_s, cpu_s, bytes_before = time.monotonic(), time.process_time(), written_bytes()
    while not agent.ended() and not task.done():
        await asyncio.sleep(0.05)
    wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    await asyncio.sleep(1.2)  # the last group commit is due by then, as it would be while the device goes on
    os.kill(os.getpid(), signal.SIGTERM)
    await task
    told = {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "written_bytes": written_bytes() - bytes_before,
        "max_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "sources": agent.names(),
    }
    np.save(out.with_suffix(".npy"), np.array(agent.arrivals, dtype="i8,i8,f8"))
    out.write_text(json.dumps(told))


if __name__ == "__main__":
    Loaded.record_streams, Loaded.seconds = int(sys.argv[2]), int(sys.argv[3])
    asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[4])))
