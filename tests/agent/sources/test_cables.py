"""Cables that are pulled out of a running agent: a sensor board and a monitor, each at the other end of a pty."""

from __future__ import annotations

import os
import subprocess
import sys
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside.firmware_bridge.recording import Recording, write_recording

CONFIG = """\
[[sources]]
kind = "serial"
name = "board"
[sources.options]
stream = "wrist"
port = "board.tty"
[[sources]]
kind = "ivy450c"
name = "monitor"
[sources.options]
stream = "bed1"
port = "monitor.tty"
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
def agent(device) -> Any:
    device.path.joinpath("agent.toml").write_text(
        CONFIG.replace('= "board.', f'= "{device.path}/board.').replace(
            '= "monitor.tty', f'= "{device.path}/monitor.tty'
        )
    )
    values = np.random.default_rng(1).integers(-30_000, 30_000, (5_000, 2), np.int16)
    write_recording(device.path / "board.npz", Recording(values, 50.0, unit="m/s2", scale=0.01))
    return device


def sources(agent: Any) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in agent.look("status")["sources"]}


def await_sources(agent: Any, good: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}

    def look() -> int:
        with suppress(AssertionError):  # no agent serves yet
            found.update(sources(agent))
        return bool(found) and good(found)

    agent.await_value(look, bool)
    return found


def test_a_pulled_cable_costs_its_own_source_until_it_is_back_and_health_says_so(agent) -> None:
    agent.start()
    with board(agent.path / "board.npz", agent.path / "board.tty"), monitor(agent.path / "monitor.tty") as ours:
        await_sources(agent, lambda s: s["monitor"]["connected"] is not None)
        print(sources(agent))
