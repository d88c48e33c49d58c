"""Cables that are pulled out of a running agent: a sensor board and a monitor, each at the other end of a pty."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tty
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.cli.looking import ask_status
from bedside.core.errors import UnavailableError
from bedside.core.ids import StreamId
from bedside.firmware_bridge.recording import Recording, write_recording
from bedside.proto.v1.local_pb2 import SourceStatus
from ivy_packets import packet

ECG = StreamId("bed1-ecg")
CONFIG = """\
[[sources]]
kind = "serial"
name = "board"
[sources.options]
stream = "wrist"
port = "{directory}/board.tty"
[[sources]]
kind = "ivy450c"
name = "monitor"
[sources.options]
stream = "bed1"
port = "{directory}/monitor.tty"
"""


@contextmanager
def board(data: Path, link: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "bedside.firmware_bridge.virtual_board", "--data", str(data)]
    process = subprocess.Popen([*command, "--pty-link", str(link), "--loop"])
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def monitor(link: Path) -> Iterator[int]:
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    link.unlink(missing_ok=True)
    link.symlink_to(os.ttyname(theirs))
    try:
        yield ours
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.fixture
def agent(device: Any) -> Any:
    (device.path / "agent.toml").write_text(CONFIG.format(directory=device.path))
    values = np.random.default_rng(1).integers(-30_000, 30_000, (5_000, 2), np.int16)
    write_recording(device.path / "board.npz", Recording(values, 50.0, unit="m/s2", scale=0.01))
    return device


class Watch:
    """Looks at the sources of a running agent."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent
        self.seen: dict[str, SourceStatus] = {}

    def until(self, good: Callable[[dict[str, SourceStatus]], bool]) -> dict[str, SourceStatus]:
        def look() -> int:
            with suppress(UnavailableError):  # nobody serves yet
                self.seen = {one.name: one for one in ask_status(self._agent.path).sources}
            return bool(self.seen) and good(self.seen)

        self._agent.await_value(look, bool)
        return self.seen

    def ingest(self) -> tuple[str, str]:
        component = json.loads(self._agent.call("health", "--json").stdout)["components"]["ingest"]
        return component["state"], component["sentence"]


def test_a_pulled_cable_costs_its_own_source_until_it_is_back_and_health_says_so(agent: Any) -> None:
    board_tty, monitor_tty = agent.path / "board.tty", agent.path / "monitor.tty"
    agent.start()
    watch = Watch(agent)
    with board(agent.path / "board.npz", board_tty):
        with monitor(monitor_tty) as ours:
            watch.until(lambda s: s["monitor"].state == "running" and s["board"].samples > 0)
            os.write(ours, packet()[400:] + packet() + packet(ecg=50))
            seen = watch.until(lambda s: s["monitor"].records == 2)
            assert (seen["monitor"].connected, seen["monitor"].samples) == (True, 2 * 350)
            board_samples = seen["board"].samples
            assert seen["board"].detail.startswith("board virtual-")
        seen = watch.until(lambda s: s["monitor"].errors >= 1)
        assert seen["monitor"].last_error.startswith("serial-lost")
        seen = watch.until(lambda s: s["monitor"].state == "waiting" and s["board"].samples > board_samples)
        assert (seen["board"].errors, seen["monitor"].connected) == (0, False)
        state, sentence = watch.ingest()
        assert state != "ok"
        assert "monitor" in sentence
    with monitor(monitor_tty) as ours, board(agent.path / "board.npz", board_tty):
        seen = watch.until(lambda s: s["board"].errors >= 1)
        assert seen["board"].last_error.startswith("serial-")
        board_samples = seen["board"].samples
        watch.until(lambda s: s["monitor"].state == "running" and s["board"].samples > board_samples)
        os.write(ours, packet(ecg=90))
        seen = watch.until(lambda s: s["monitor"].records == 3)
        assert (seen["monitor"].samples, seen["monitor"].unmapped) == (3 * 350, 0)
        assert watch.ingest()[0] == "ok"
    assert agent.stop() == 0
    key = load_key_ring(agent.path / "state" / "identity")
    with closing(BufferReader(agent.path / "state" / "buffer.db", key)) as reader:
        stored = [run for one in reader.sessions(ECG) for run in reader.read_range(ECG, one.session)]
    sent = np.concatenate([np.frombuffer(packet(ecg=at)[9:209], np.uint8) for at in (120, 50, 90)])
    assert np.array_equal(np.concatenate([run.values for run in stored])[:, 0], sent.astype(np.int16) - 128)
