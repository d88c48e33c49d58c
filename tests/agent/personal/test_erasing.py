"""A session that is forgotten, or whose consent is withdrawn, is in nothing that a device has learnt for itself."""

from __future__ import annotations

from contextlib import asynccontextmanager

import numpy as np
import pytest
from click.testing import CliRunner

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.sessions import ADT
from bedside.agent.cli import agent as commands
from bedside.agent.config import load_agent_config
from bedside.agent.daemon import Agent
from bedside.agent.personal.files import Personal, PersonalFiles, facts_of
from bedside.agent.rounds.journal import Contribution, Journal, KeptRow, OutboxRow
from bedside.agent.rounds.memory import Seen
from bedside.agent.rounds.outbox import Outbox
from bedside.agent.training.saved import state_path
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Mark, MarkKind, Record
from bedside.core.securesum.device import ContributionInput, ContributionState
from bedside.proto.v1.local_pb2 import LabelRef
from bedside.service.platform import SystemClock, SystemEntropy

CONFIG = """\
[link]
enabled = false
[inference]
runtime = "onnx"
[personal]
fine_tune = true
temperature = true
[training.gates]
load_per_core = 1000.0
temperature_c = 199.0
while_throttled = true
settle_s = 0.0
"""


@asynccontextmanager
async def running(home):
    """The agent of a device, whose models serve."""
    agent = Agent(home.device.path, load_agent_config(home.device.path), SystemClock(), SystemEntropy(), "1.0")
    try:
        await agent._serving.start()
        yield agent
    finally:
        agent._personal.close()
        agent._serving.desk.close()
        await agent._pipeline.close(1.0)
        agent._reader.close()
        agent._buffer.close()


def served(agent):
    return agent._pipeline.engine.slots["tiny"].model


def traces(home, sealed) -> list[str]:
    """Files of the device in which a piece of what was sealed is still to be found."""
    needles = [data[at : at + 24] for data in sealed for at in range(0, len(data) - 24, 97)]
    files = [path for path in home.state.rglob("*") if path.is_file()]
    return [path.name for path in files if any(needle in path.read_bytes() for needle in needles)]


@pytest.mark.parametrize("how", ["forget", "withdraw"])
async def test_what_was_learnt_from_a_session_goes_with_it_from_the_files_and_from_what_serves(home, how) -> None:
    (home.device.path / "agent.toml").write_text(CONFIG)
    windows = np.random.default_rng(2).normal(30, 3, (8, 32, 2)).astype(np.float32)
    async with running(home) as agent:
        await agent._personal.look()
        mine = served(agent)
        plain = home.models.opened(home.active, home.bundle, dict(home.bundle.parameters)).model
        assert mine.head.temperature != 1.0
        assert not np.array_equal(mine.logits(windows), plain.logits(windows))
        sealed = [path.read_bytes() for path in (home.state / "personal").iterdir()]
        assert len(sealed) == 2
        assert traces(home, sealed)
        home.files.write_pending("other", Personal(facts_of("other", "ab" * 32, ["another"])), SystemEntropy())
        home.files.adopt("other", "local", "ab" * 32, home.files.erasures)

        sessions = agent._calls().sessions
        trained_on = next(session for session in home.sessions if mine_learnt_from(home, session))
        if how == "forget":
            assert (await sessions.forget(trained_on))["personal_models"] == 2
        else:
            sessions.set_consent(trained_on, training=False)
        await agent._personal.settled()
        assert traces(home, sealed) == []
        assert [facts.facts.name for _, facts in home.files.all()] == ["other"], "another model's stays"
        assert served(agent).head.temperature == 1.0
        assert np.array_equal(served(agent).logits(windows), plain.logits(windows))

        await agent._personal.look()  # and is made again of what is left
        found = home.files.read("local", home.active.bundle)
        assert found is not None
        assert not found.facts.learnt_from(trained_on)


@pytest.mark.parametrize("what", ["consent", "label", "doubt"])
async def test_what_is_withdrawn_ends_a_training_and_frees_no_delta_that_rests_on_it(home, what) -> None:
    (home.device.path / "agent.toml").write_text(CONFIG)
    async with running(home) as agent:
        journal = agent._uplink._journal = Journal.open(home.state)
        plan, name = b"p" * 32, Outbox.kept_name_for(b"p" * 32)
        journal.accept(Contribution(plan, "watch", 1, ContributionState.TRAINING, b"offer", "", ""), Seen(), now_ns=1)
        row = OutboxRow(plan, b"header", Outbox.name_for(plan), 5)
        journal.commit_upload(row, KeptRow(plan, name), None, now_ns=2)
        journal.finish(plan, ContributionInput.BURNED, now_ns=3)
        kept = Outbox(home.state).directory / name
        kept.write_bytes(b"sealed")
        paused = state_path(home.state, "round-x")
        paused.write_bytes(b"sealed")
        before = journal.erasures()
        calls, session = agent._calls(), home.sessions[0]
        if what == "consent":
            calls.sessions.set_consent(session, training=True)
            assert journal.erasures() == before
            calls.sessions.set_consent(session, training=False)
        elif what == "doubt":
            bed, mark = StreamId("bed-4"), MarkKind.SESSION_OPEN
            now_ns = SystemClock().now_ns()
            agent._buffer.mark(Mark(bed, now_ns - 400 * 10**9, now_ns - 400 * 10**9, "", ADT, mark))
            agent._buffer.add_record(Record(bed, now_ns - 200 * 10**9, {"pulse": 60.0}))
            agent._buffer.mark(Mark(bed, now_ns - 300 * 10**9, now_ns - 300 * 10**9, "", ADT, mark))
        else:
            label = agent._reader.labels(SessionId(session))[0]
            calls.labels.withdraw(LabelRef(id=label.number))
        assert journal.erasures() == before + 1, "what a child trains meanwhile is not used"
        assert agent._trainer._forgotten == 1
        assert journal.freed("watch") is None
        assert not kept.exists()
        assert not paused.exists()
        journal.close()


def mine_learnt_from(home, session: str) -> bool:
    return all(found.facts.learnt_from(session) for _, found in home.files.all() if found.facts.name == "tiny")


async def test_a_session_that_nothing_was_learnt_from_takes_nothing_with_it(home) -> None:
    (home.device.path / "agent.toml").write_text(CONFIG.replace("fine_tune = true", "fine_tune = false"))
    async with running(home) as agent:
        assert await agent._personal.count(home.active, "tiny")
        later_ns = agent._buffer.sessions.last_end_ns(StreamId("wrist")) + 10**12
        agent._buffer.mark(Mark(StreamId("wrist"), later_ns, later_ns, "", "test", MarkKind.SESSION_OPEN))
        newest = agent._reader.sessions()[-1].session
        assert newest not in home.sessions
        assert (await agent._calls().sessions.forget(newest))["personal_models"] == 0
        assert home.files.read("local", home.active.bundle) is not None


def test_a_command_without_an_agent_takes_back_what_was_learnt_too(home) -> None:
    (home.device.path / "agent.toml").write_text(CONFIG)
    for number, session in enumerate(home.sessions[:2]):
        bundle = f"{number}b" * 32
        home.files.write_pending("task", Personal(facts_of("tiny", bundle, [session])), SystemEntropy())
        home.files.adopt("task", "local", bundle, home.files.erasures)
    runner, where = CliRunner(), str(home.device.path)
    result = runner.invoke(commands, ["session", "consent", where, home.sessions[0], "withdraw"])
    assert result.exit_code == 0, result.output
    assert [found.facts.learnt_from(home.sessions[1]) for _, found in home.files.all()] == [True]
    result = runner.invoke(commands, ["forget", where, home.sessions[1], "--yes", "--json"])
    assert result.exit_code == 0, result.output
    assert list((home.state / "personal").iterdir()) == []


def test_a_new_key_seals_it_too(home) -> None:
    (home.device.path / "agent.toml").write_text(CONFIG)
    home.files.write_pending("task", Personal(facts_of("tiny", home.active.bundle, ["s"])), SystemEntropy())
    home.files.adopt("task", "local", home.active.bundle, home.files.erasures)
    result = CliRunner().invoke(commands, ["db", "rotate-key", str(home.device.path)])
    assert result.exit_code == 0, result.output
    assert home.files.read("local", home.active.bundle) is None, "the old key is of no use"
    ring = load_key_ring(home.identity)
    assert PersonalFiles(home.state, ring).read("local", home.active.bundle) is not None
