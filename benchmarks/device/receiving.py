"""Processes that receive, what they have taken, and what that has cost."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bedside.agent.client import LocalAgent
from bedside.core.errors import BedsideError

PATIENCE_S = 120.0
_LOOK_S = 0.05
Look = Callable[[], Awaitable[int]]


@dataclass(frozen=True)
class Taken:
    """What a receiver needed for a load.

    Attributes:
        rate_hz: messages per second.
        cpu_us: of its process, by message.
    """

    rate_hz: float
    cpu_us: float


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process of ours, told to stop at the end."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
            assert process.stdout is not None
            process.stdout.close()


def cpu_s(process: subprocess.Popen[str]) -> float:
    """CPU that a process has used."""
    used = psutil.Process(process.pid).cpu_times()
    return float(used.user + used.system)


async def reach(look: Look, count: int, process: subprocess.Popen[str]) -> float:
    """Wait until so many were taken; returns when."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (taken := await look()) < count:
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"{taken} of {count} messages were taken; the receiver's status is {process.poll()}")
        await asyncio.sleep(_LOOK_S)
    return time.monotonic()


def taken_by_agent(device: Path) -> Look:
    """Records and blocks that an agent has taken."""

    async def look() -> int:
        with suppress(BedsideError):
            async with LocalAgent(device) as agent:
                return sum(one.records + one.blocks for one in (await agent.status()).sources)
        return 0

    return look


def is_connected(device: Path) -> Look:
    """Whether an agent's sources have their peers."""

    async def look() -> int:
        with suppress(BedsideError):
            async with LocalAgent(device) as agent:
                return int(all(one.connected for one in (await agent.status()).sources))
        return 0

    return look


def taken_by_peer(database: Path) -> Look:
    """Rows that a peer has committed."""

    async def look() -> int:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader:
            return int(reader.execute("SELECT count(*) FROM vitals").fetchone()[0])

    return look


async def load(look: Look, process: subprocess.Popen[str], count: int, send: Callable[[], Awaitable[None]]) -> Taken:
    """Send a load and wait until it is taken."""
    before_s, began_s = cpu_s(process), time.monotonic()
    sending = asyncio.ensure_future(send())
    taking = asyncio.ensure_future(reach(look, count, process))
    await asyncio.wait((sending, taking), return_when=asyncio.FIRST_EXCEPTION)
    if sending.done() and sending.exception() is not None:
        taking.cancel()
    await sending
    ended_s = await taking
    return Taken(count / (ended_s - began_s), 1e6 * (cpu_s(process) - before_s) / count)
