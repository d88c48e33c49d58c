"""A device's directory without a model, and the real agent in this process, under a clock of the test's choice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.config import load_agent_config
from bedside.agent.daemon import Agent
from bedside.agent.sources.supervisor import SourceHealth
from bedside.core.clock import Clock
from bedside.core.ids import StreamId
from bedside.core.samples import Record
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.identity import create_identity
from bedside.service.platform import SystemClock, SystemEntropy

LINK_OFF = "[link]\nenabled = false\n"


def make_directory(path: Path, config: str) -> Path:
    """A device's directory with this configuration behind the link, which is off."""
    path.mkdir(parents=True)
    create_identity(path / "state" / "identity", Role.ROLE_DEVICE, SystemEntropy())
    (path / "policy.toml").write_text("")
    (path / "agent.toml").write_text(config + LINK_OFF)
    return path


class Resident:
    """An agent at work.

    Attributes:
        health: of every source, by name.
    """

    def __init__(self, agent: Agent, task: asyncio.Task[None]) -> None:
        self.health: dict[str, SourceHealth] = agent._supervisor.health
        self._agent = agent
        self.task = task

    async def until(self, good: Callable[[], object], within_s: float = 30.0) -> None:
        """Return when something is so; fail when it is not in time, or when the agent has ended."""
        deadline_s = time.monotonic() + within_s
        while not good():
            if self.task.done():
                await self.task
                raise AssertionError("the agent has ended")
            assert time.monotonic() < deadline_s, {name: str(one) for name, one in self.health.items()}
            await asyncio.sleep(0.02)

    @property
    def commits(self) -> bool:
        """Whether a group commit is under way."""
        return self._agent._committer.busy

    def component(self, name: str) -> str:
        """How a component of health is, looked at now."""
        self._agent._observer.look()
        state = self._agent._health.snapshot()[name]
        return f"{state.level.name}: {state.sentence}"


@asynccontextmanager
async def resident(directory: Path, clock: Clock | None = None) -> AsyncIterator[Resident]:
    """The agent of a directory; when this ends it is told to stop, and all is committed."""
    agent = Agent(directory, load_agent_config(directory), clock or SystemClock(), SystemEntropy(), "test")
    task = asyncio.create_task(agent.run())
    try:
        yield Resident(agent, task)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@contextmanager
def buffer_of(directory: Path) -> Iterator[BufferReader]:
    """What a device has stored."""
    with closing(
        BufferReader(directory / "state" / "buffer.db", load_key_ring(directory / "state/identity"))
    ) as reader:
        yield reader


def records_of(reader: BufferReader, stream: str) -> list[Record]:
    """Every record of a stream, in the order of time within its sessions."""
    name = StreamId(stream)
    return [record for session in reader.sessions(name) for record in reader.records(name, session.session)]


def values_of(reader: BufferReader, stream: str) -> int:
    """Values of records that are stored of a stream."""
    return sum(len(record.values) for record in records_of(reader, stream))


def samples_of(reader: BufferReader, stream: str) -> int:
    """Samples of waveform, of all channels at one time, that are stored of a stream."""
    name = StreamId(stream)
    sessions = reader.sessions(name)
    return sum(len(part.values) for one in sessions for part in reader.parts(name, one.session))


def dropped_of(reader: BufferReader, stream: str) -> int:
    """What durable counters tell of that a stream had and the buffer has not."""
    rows = reader._rows("SELECT name, value FROM counters WHERE stream = ?", stream)
    return sum(int(row["value"]) for row in rows if str(row["name"]).startswith(("dropped-", "evicted-", "lost-")))


def quarantine_of(reader: BufferReader) -> dict[str, Counter[str]]:
    """What the quarantine has counted: reasons by source."""
    found: dict[str, Counter[str]] = {}
    for row in reader.quarantine():
        found.setdefault(row.source, Counter())[row.reason] += row.count
    return found
