"""SIGHUP of an agent: what changed is taken up, what did not goes on undisturbed, and a mistake changes nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bedside.firmware_bridge.recording import Recording, write_recording
from bedside.service.cli import run
from resident_device import LINK_OFF, Resident, dropped_of, make_directory, resident, samples_of
from resident_device import buffer_of as stored
from service_manager import Manager, listening

WRIST = """\
[[sources]]
kind = "replay"
name = "wrist"
[sources.options]
stream = "wrist"
data = "signal.npz"
"""
ANKLE = WRIST.replace("wrist", "ankle")
FALL = '[[alarms]]\nname = "fall"\nlabel = "fall"\nabove = {}\n'
HOOK = '[[sinks]]\nkind = "webhook"\nname = "his"\n[sinks.options]\nurl = "https://127.0.0.1:9/"\n'
LOG = '[[sinks]]\nkind = "csv"\nname = "log"\n[sinks.options]\ndirectory = "out"\n'


@pytest.fixture
def directory(tmp_path) -> Path:
    made = make_directory(tmp_path / "d", WRIST)
    write_recording(made / "signal.npz", Recording(np.zeros((60 * 50, 2), np.float32), 50.0, unit="mV"))
    return made


def write(directory: Path, config: str, link: str = LINK_OFF) -> None:
    (directory / "agent.toml").write_text(config + link)


async def reload(agent: Resident, word: str) -> str:
    """Ask for a reload; what `config` says once that has a word."""
    agent._agent.reload.asked.set()
    await agent.until(lambda: word in agent.component("config"))
    return agent.component("config")


async def test_a_source_that_is_as_it_was_goes_on_without_a_gap_while_others_come_and_go(directory) -> None:
    async with resident(directory) as agent:
        wrist = agent.health["wrist"]
        await agent.until(lambda: wrist.samples > 20)
        write(directory, WRIST + ANKLE + LOG)
        assert await reload(agent, "reloaded") == "OK: reloaded: sources, sinks"
        await agent.until(lambda: "ankle" in agent.health and agent.health["ankle"].samples > 20)
        assert {source.name for source in agent._agent._observer.facts().sources} == {"wrist", "ankle"}
        assert "ankle" in agent._agent._pipeline.sources
        assert [sink.name for sink in agent._agent._sinks.facts()] == ["log"]
        write(directory, WRIST + FALL.format(0.9))
        assert await reload(agent, "alarms") == "OK: reloaded: sources, sinks, alarms"
        assert list(agent.health) == ["wrist"]
        assert agent.health["wrist"] is wrist
        assert agent._agent._sinks.facts() == []
        before = wrist.samples
        await agent.until(lambda: wrist.samples > before)
    with stored(directory) as reader:
        assert samples_of(reader, "wrist") == wrist.samples
        assert dropped_of(reader, "wrist") == 0
        assert len(reader.sessions("wrist")) == 1


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("[buffer]\ncap_mbi = 1\n", "'buffer.cap_mbi' is not a key"),
        (ANKLE.replace("signal.npz", "none.npz") + FALL.format(0.5), "and 1 more"),
        ("[[sources]\n", "is not TOML"),
    ],
)
async def test_a_mistake_changes_nothing_and_is_told_of_until_it_is_mended(directory, mistake, sentence) -> None:
    async with resident(directory) as agent:
        digest = agent._agent._observer.facts().config_digest
        write(directory, FALL.format(0.7) + mistake)
        said = await reload(agent, "refused")
        assert said.startswith("DEGRADED: agent.toml is refused, what was in force stays: ")
        assert sentence in said
        assert list(agent.health) == ["wrist"]
        assert agent._agent._alarms._rules == {}
        assert agent._agent._observer.facts().config_digest == digest
        write(directory, WRIST + FALL.format(0.7))
        assert await reload(agent, "OK") == "OK: reloaded: alarms"
        assert agent._agent._observer.facts().config_digest != digest


async def test_what_trainings_gates_and_heartbeats_go_by_is_taken_up(directory) -> None:
    async with resident(directory) as agent:
        its = agent._agent
        write(
            directory,
            'heartbeat = "minimal"\npolicy = "other.toml"\n[training]\nenabled = false\n[training.gates]\n'
            "temperature_c = 40.0\n[serving]\ngate = false\n[personal]\ntemperature = true\n" + WRIST,
        )
        (directory / "other.toml").write_text("")
        assert await reload(agent, "reloaded") == "OK: reloaded: policy, heartbeat, training, serving, personal"
        assert its._detail() == "minimal"
        assert its._trainer._gates._config.temperature_c == 40.0
        assert not its._serving.desk._gate.rules.gate
        assert not its._uplink._settings.training.enabled
        assert its._uplink._settings.policy_path == directory / "other.toml"
        assert its._personal._setting.config.temperature
        assert not its._personal._setting.trains


async def test_what_only_a_restart_changes_is_named_and_stays(directory) -> None:
    async with resident(directory) as agent:
        write(
            directory,
            "[buffer]\ncap_mib = 7\n" + WRIST + FALL.format(0.9),
            "[link]\nenabled = false\nheartbeat_s = 3\n",
        )
        said = await reload(agent, "restart")
        assert said == "DEGRADED: reloaded: alarms; a restart is needed for buffer, link"
        assert agent._agent._config.buffer.cap_mib == 512


def health(directory: Path) -> dict[str, str]:
    command = [sys.executable, "-m", "bedside.service", "agent", "health", str(directory), "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
    return {name: part["state"] for name, part in told["components"].items()}


def hang_up(agent: subprocess.Popen[bytes], manager: Manager) -> str:
    agent.send_signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in manager.until("RELOADING=1")
    return manager.until("READY=1")


def test_sighup_of_the_process_reloads_and_never_ends_it(directory, tmp_path) -> None:
    with listening(tmp_path) as manager:
        command = [sys.executable, "-m", "bedside.agent.resident", str(directory), "test"]
        agent = subprocess.Popen(command, env=manager.environment)
        try:
            manager.until("READY=1")
            write(directory, WRIST + ANKLE)
            assert "STATUS=reloaded: sources" in hang_up(agent, manager)
            write(directory, WRIST + ANKLE + "[[alarm]]\n")
            assert "STATUS=agent.toml is refused" in hang_up(agent, manager)
            assert health(directory)["config"] == "degraded"
            write(directory, WRIST + ANKLE + HOOK)
            told = hang_up(agent, manager)
            assert "STATUS=reloaded: nothing yet; a restart is needed for sinks" in told, (
                "it has begun without Python's TLS"
            )
            manager.until("WATCHDOG=1")
        finally:
            agent.terminate()
            assert agent.wait(20) == 0


def test_sighup_ends_no_agent_that_only_begins(monkeypatch, directory) -> None:
    seen, before = [], signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr("os.execve", lambda *_: seen.append(signal.getsignal(signal.SIGHUP)))
    try:
        run(["agent", "run", str(directory)], {})
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == [signal.SIG_IGN]
