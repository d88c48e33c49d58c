"""A whole agent under a clock that is wrong: nothing stored is lost, nobody's session ends in another century."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from bedside.agent import daemon
from bedside.agent.config import load_agent_config
from bedside.agent.daemon import Agent
from bedside.agent.device_time import FILE_NAME
from bedside.core.errors import RefusedError
from bedside.core.ids import StreamId
from bedside.core.samples import Block
from bedside.service.platform import SystemClock, SystemEntropy

BED = StreamId("bed-9")
S = 1_000_000_000
CENTURIES_NS = 5_500_000_000 * S


class WrongClock(SystemClock):
    """The machine's clock, which an instance shifts."""

    off_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.off_ns


@pytest.fixture
def start(device):
    """Assemble agents of one device that has run before, and close them as a kill would leave their files."""
    state = load_agent_config(device.path).state_dir
    state.mkdir(exist_ok=True)
    (state / FILE_NAME).write_text(f'{{"trusted_ns": {SystemClock().now_ns()}}}')
    open_: list[Agent] = []

    def assemble(off_ns: int = 0) -> Agent:
        while open_:
            open_.pop()._buffer.close()
        clock = WrongClock()
        clock.off_ns = off_ns
        open_.append(Agent(device.path, load_agent_config(device.path), clock, SystemEntropy(), "0"))
        return open_[-1]

    yield assemble
    while open_:
        open_.pop()._buffer.close()


def say(agent: Agent, seconds: int = 120) -> tuple[str, int]:
    """Signal that ends now, and a label on it; returns its session and end."""
    end_ns = SystemClock().now_ns()
    for second in range(seconds):
        values = np.ones((50, 1), np.int16)
        at_ns = end_ns - (seconds - second) * S
        session = agent._buffer.append(Block(BED, at_ns, 50.0, values, unit="mV", metric="", scale=1))
    agent._buffer.add_label(BED, end_ns - 9 * S, end_ns - 8 * S, "walk", "cli")
    agent._buffer.flush()
    return session, end_ns


async def test_a_clock_that_is_wrong_for_a_moment_expires_nothing(start, monkeypatch) -> None:
    monkeypatch.setattr(daemon, "RETENTION_INTERVAL_S", 0.0)
    monkeypatch.setattr(daemon, "RETENTION_PAUSE_S", 0.0)
    agent = start()
    say(agent)
    rows = agent._reader.rows()
    looks: list[int] = []
    prepare = agent._retention.prepare

    def looked(now_ns: int, specs: object):
        looks.append(now_ns)
        return prepare(now_ns, specs)

    monkeypatch.setattr(agent._retention, "prepare", looked)
    agent._clock.off_ns = CENTURIES_NS
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        retaining = tasks.create_task(agent._retain())
        while len(looks) < 3:
            await asyncio.sleep(0.01)
        retaining.cancel()
    assert agent._reader.rows() == rows
    assert max(looks) <= SystemClock().now_ns()
    agent._observer.look()
    state = agent._health.snapshot()["buffer"]
    assert (state.level.name, state.sentence.split(" by ")[0]) == ("DEGRADED", "the clock jumped")
    agent._clock.off_ns = 0
    agent._observer.look()
    assert agent._health.snapshot()["buffer"].level.name == "OK"


@pytest.mark.parametrize("at_start", [False, True])
async def test_sessions_are_refused_while_the_clock_is_off_by_years_and_samples_go_on(start, at_start) -> None:
    agent = start()
    session, _ = say(agent)
    if at_start:
        agent = start(CENTURIES_NS)
    agent._clock.off_ns = CENTURIES_NS
    calls = agent._calls().sessions
    for call in (calls.close, lambda stream: calls.open(stream, consent_training=False, origin="cli")):
        with pytest.raises(RefusedError) as refused:
            call(BED)
        assert refused.value.code == "clock-implausible"
    assert say(agent, 1)[0] == session
    agent._clock.off_ns = 30 * 86_400 * S
    assert calls.close(BED).closed_ns <= SystemClock().now_ns()


async def test_what_a_wrong_clock_left_behind_is_mended_at_the_next_start(start) -> None:
    agent = start()
    session, end_ns = say(agent)
    agent._buffer.sessions.close(BED, end_ns + CENTURIES_NS)
    agent = start()
    assert agent.reload._working.builder._last_end_ns(BED) == end_ns
    found = agent._reader.session(session)
    assert found is not None
    assert found.closed_ns == end_ns
    agent._buffer.append(Block(BED, end_ns + CENTURIES_NS, 50.0, np.ones((50, 1), np.int16), "mV", "", 1))
    agent = start()
    assert agent.reload._working.builder._last_end_ns(BED) == end_ns, "signal stays, signal time does not"
