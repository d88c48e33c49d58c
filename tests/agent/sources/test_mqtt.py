"""The source of MQTT messages against a real broker: nothing of QoS 1 is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mosquitto_broker import T0_MS, Mosquitto, mosquitto, needs_mosquitto, publish, vitals
from resident_device import buffer_of, make_directory, records_of, resident

pytestmark = needs_mosquitto

SOURCE = """\
[[sources]]
kind = "mqtt"
name = "ward"
[sources.options]
broker = "127.0.0.1:{port}"
client_id = "gateway-7"
tls = false
{more}
[sources.options.fields.heart_rate]
code = "hr"
sent_unit = "/min"
[sources.options.fields.spo2]
sent_unit = "%"
[sources.options.topics."ward/+/vitals"]
stream = "vitals-{{1}}"
places = ["bed-1", "bed-2"]
payload.kind = "json"
payload.values = {{ hr = "hr", spo2 = "spo2" }}
payload.time = "ts"
payload.time_format = "ms"
"""


def device(path: Path, port: int, more: str = "") -> Path:
    return make_directory(path, SOURCE.format(port=port, more=more))


def rates(directory: Path, stream: str = "vitals-bed-1") -> Counter[int]:
    """How often each message is stored, by its number."""
    with buffer_of(directory) as reader:
        return Counter((record.time_ns // 1_000_000 - T0_MS) // 1000 for record in records_of(reader, stream))


def messages(count: int, start: int = 0) -> list[tuple[str, bytes]]:
    return [("ward/bed-1/vitals", vitals(number)) for number in range(start, start + count)]


@contextmanager
def agent_process(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The agent as a process of its own; killed at the end if it still runs."""
    command = [sys.executable, "-m", "bedside.service", "agent", "run", str(directory)]
    with (directory / "log.txt").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def is_stored(directory: Path, count: int) -> bool:
    return (directory / "state" / "buffer.db").exists() and len(rates(directory)) >= count


async def await_stored(directory: Path, count: int) -> None:
    deadline_s = time.monotonic() + 30
    while not is_stored(directory, count):
        assert time.monotonic() < deadline_s, (directory / "log.txt").read_text()
        await asyncio.sleep(0.05)


async def heard(broker: Mosquitto, directory: Path) -> None:
    """Send the first message until an agent has subscribed, and has stored it."""
    while not is_stored(directory, 1):
        await publish(broker.port, messages(1))
        await asyncio.sleep(0.1)


@pytest.fixture
def broker(tmp_path: Path):
    with mosquitto(tmp_path / "broker") as running:
        yield running


async def test_messages_become_records(tmp_path: Path, broker: Mosquitto) -> None:
    directory = device(tmp_path / "device", broker.port)
    async with resident(directory) as agent:
        await agent.until(lambda: agent.health["ward"].gauge.connected)
        await publish(broker.port, messages(40))
        await agent.until(lambda: len(rates(directory)) == 40)
    assert rates(directory) == Counter(range(40))


async def test_a_broker_that_stops_and_starts_costs_no_message_and_doubles_none(
    tmp_path: Path, broker: Mosquitto
) -> None:
    directory = device(tmp_path / "device", broker.port)
    async with resident(directory) as agent:
        await agent.until(lambda: agent.health["ward"].gauge.connected)
        publishing = asyncio.create_task(publish(broker.port, messages(600)))
        for seen in (50, 250):
            await agent.until(lambda seen=seen: len(rates(directory)) >= seen)
            await asyncio.to_thread(broker.stop)
            await agent.until(lambda: not agent.health["ward"].gauge.connected)
            await asyncio.to_thread(broker.start)
        await publishing
        await agent.until(lambda: len(rates(directory)) == 600)
        health = agent.health["ward"]
    assert rates(directory) == Counter(range(600))
    assert health.errors >= 2
    assert "mqtt-away" in health.last_error


async def test_an_agent_that_is_killed_loses_no_message(tmp_path: Path, broker: Mosquitto) -> None:
    directory = device(tmp_path / "device", broker.port)
    with agent_process(directory) as process:
        await heard(broker, directory)
        publishing = asyncio.create_task(publish(broker.port, messages(3_000)))
        await await_stored(directory, 100)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    stored = rates(directory)
    await publishing
    assert 100 <= len(stored) < 3_000, "it was killed in the middle"
    with agent_process(directory):
        await await_stored(directory, 3_000)
    assert rates(directory).keys() == set(range(3_000))
