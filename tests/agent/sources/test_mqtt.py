"""The source of MQTT messages against a real broker: nothing of QoS 1 is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.config import load_agent_config
from bedside.agent.sources.kind import SourceContext, SourceGauge
from bedside.agent.sources.registry import build_source, typed_source
from bedside.core.errors import StoreError
from bedside.core.ids import StreamId
from bedside.core.samples import Event, Record
from bedside.firmware_bridge.recording import Recording, write_recording
from bedside.service.platform import SystemClock
from mllp_peers import certificates
from mosquitto_broker import (
    T0_MS,
    Mosquitto,
    mosquitto,
    needs_mosquitto,
    passwords,
    publish,
    tls_options,
    vitals,
)
from resident_device import buffer_of, make_directory, quarantine_of, records_of, resident, samples_of

pytestmark = needs_mosquitto

SOURCE = """\
[[sources]]
kind = "mqtt"
name = "ward"
[sources.options]
broker = "127.0.0.1:{port}"
client_id = "gateway-7"
tls = {tls}
{more}
[sources.options.fields.heart_rate]
code = "hr"
sent_unit = "/min"
[sources.options.fields.spo2]
sent_unit = "%"
{topics}
[sources.options.topics."ward/+/vitals"]
stream = "vitals-{{1}}"
places = ["bed-1", "bed-2"]
payload.kind = "json"
payload.values = {{ hr = "hr", spo2 = "spo2" }}
payload.time = "ts"
payload.time_format = "ms"
"""
ANY = """\
[sources.options.topics."any/+/#"]
stream = "any-{1}"
places = ["bed-1"]
payload.kind = "number"
payload.code = "{2}"
"""
ECG = """\
[sources.options.topics."ward/bed-1/ecg"]
stream = "ecg"
payload.kind = "samples"
payload.rate_hz = 250
payload.time = "ms"
"""
REPLAY = """\
[[sources]]
kind = "replay"
name = "wrist"
[sources.options]
stream = "wrist"
data = "{data}"
loop = true
"""


def device(path: Path, port: int, more: str = "", *, tls: bool = False, topics: str = "", others: str = "") -> Path:
    told = SOURCE.format(port=port, more=more, tls=str(tls).lower(), topics=topics)
    return make_directory(path, told + others)


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
    with suppress(StoreError):  # the agent is just making its database
        return (directory / "state" / "buffer.db").exists() and len(rates(directory)) >= count
    return False


async def await_stored(directory: Path, count: int) -> None:
    deadline_s = time.monotonic() + 30
    while not is_stored(directory, count):
        assert time.monotonic() < deadline_s, (directory / "log.txt").read_text()
        await asyncio.sleep(0.05)


async def heard(broker: Mosquitto, directory: Path) -> None:
    """Send the first message until an agent has subscribed, and has stored it."""
    async with asyncio.timeout(30):
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


async def test_an_agent_that_is_killed_loses_no_message_and_doubles_none(tmp_path: Path, broker: Mosquitto) -> None:
    directory = device(tmp_path / "device", broker.port)
    with agent_process(directory) as process:
        await heard(broker, directory)
        publishing = asyncio.create_task(publish(broker.port, messages(1_500)))
        await await_stored(directory, 100)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    stored = rates(directory)
    await publishing
    assert 100 <= len(stored) < 1_500, "it was killed in the middle"
    with agent_process(directory):
        await await_stored(directory, 1_500)
    assert rates(directory) == Counter(range(1_500))


async def test_a_waveform_goes_on_where_it_was_when_its_agent_ends(tmp_path: Path, broker: Mosquitto) -> None:
    directory = device(tmp_path / "device", broker.port, topics=ECG)

    def stretch(number: int) -> tuple[str, bytes]:
        values = np.arange(number * 25, number * 25 + 25, dtype="<i2")
        return "ward/bed-1/ecg", (T0_MS + 100 * number).to_bytes(8, "little") + values.tobytes()

    async with resident(directory) as agent:
        await agent.until(lambda: agent.health["ward"].gauge.connected)
        await publish(broker.port, [stretch(number) for number in range(30)])
        await agent.until(lambda: agent.health["ward"].samples >= 500)
    await publish(broker.port, [stretch(number) for number in range(30, 60)])
    async with resident(directory) as agent:
        await agent.until(lambda: stored_samples(directory) == 60 * 25)
        assert not agent.health["ward"].gauge.dropped
    with buffer_of(directory) as reader:
        ecg = StreamId("ecg")
        parts = [part for one in reader.sessions(ecg) for part in reader.parts(ecg, one.session)]
    np.testing.assert_array_equal(np.concatenate([part.values[:, 0] for part in parts]), np.arange(60 * 25))


def stored_samples(directory: Path) -> int:
    with buffer_of(directory) as reader:
        return samples_of(reader, "ecg")


async def test_a_broker_with_tls_and_a_password_is_used_and_a_wrong_password_is_said(tmp_path: Path) -> None:
    files = certificates(tmp_path / "tls")
    extra = tls_options(files) + passwords(tmp_path / "passwords", "gateway", "right")
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    secret.chmod(0o600)
    with mosquitto(tmp_path / "broker", extra) as broker:
        more = f'user = "gateway"\npassword = "{secret}"\nca = "{files.ca}"'
        directory = device(tmp_path / "device", broker.port, more, tls=True)
        async with resident(directory) as agent:
            health = agent.health["ward"]
            await agent.until(lambda: health.errors)
            assert f"mqtt-refused: the broker 127.0.0.1:{broker.port} refuses us: not authorized" in health.last_error
            assert "check user, password" in health.last_error
            assert "wrong" not in health.last_error
            secret.write_text("right\n")
            await agent.until(lambda: health.gauge.connected)
            account = {"username": "gateway", "password": "right", "tls_context": files.client()}
            await publish(broker.port, messages(20), **account)
            await agent.until(lambda: len(rates(directory)) == 20)


async def test_a_broker_that_another_authority_vouches_for_is_not_believed(tmp_path: Path) -> None:
    files, others = certificates(tmp_path / "tls"), certificates(tmp_path / "others")
    with mosquitto(tmp_path / "broker", "allow_anonymous true\n" + tls_options(files)) as broker:
        directory = device(tmp_path / "device", broker.port, f'ca = "{others.ca}"', tls=True)
        async with resident(directory) as agent:
            await agent.until(lambda: agent.health["ward"].errors)
            assert "mqtt-tls" in agent.health["ward"].last_error
            assert "check `ca`" in agent.health["ward"].last_error


async def test_a_hostile_publisher_costs_what_it_sends_and_nobody_else(tmp_path: Path, broker: Mosquitto) -> None:
    write_recording(tmp_path / "signal.npz", Recording(np.zeros((500, 1), np.float32), 250.0))
    other = REPLAY.format(data=tmp_path / "signal.npz")
    directory = device(tmp_path / "device", broker.port, topics=ANY, others=other)
    noise = [os.urandom(size) for size in (0, 1, 40, 4_000, 200_000)]
    nested = [
        b"[" * 250_000,
        b'{"hr":' * 40_000,
        b"[" * 250 + b"]" * 250,
        b"[" + b"1," * 100_000 + b"1]",
        b'"' * 200_000,
    ]
    wrong = [b"{}", b'{"ts":1e999,"hr":1}', b'{"ts":"x","hr":72}', b'{"ts":-5,"hr":72}', vitals(0, hr={"a": []})]
    hostile = [("ward/bed-1/vitals", payload) for payload in noise + nested + wrong]
    hostile += [(f"any/{number}/{'x' * 900}", b"1") for number in range(2_000)]
    too_large = ("ward/bed-1/vitals", b"[" * 5_000_000)
    async with resident(directory) as agent:
        health, replayed = agent.health["ward"], agent.health["wrist"]
        await agent.until(lambda: health.gauge.connected)
        before = replayed.blocks
        await asyncio.gather(publish(broker.port, hostile), publish(broker.port, [too_large]))
        await publish(broker.port, messages(3, 1))
        await agent.until(lambda: rates(directory).keys() >= {1, 2, 3})
        await agent.until(lambda: replayed.blocks > before)
        assert not health.errors
        assert not replayed.errors
        unmapped = health.unmapped
    assert unmapped == len(hostile), "one thing in each of them is no value"
    with buffer_of(directory) as reader:
        counted = quarantine_of(reader)["ward"]
    assert sum(counted.values()) == unmapped
    assert counted["unknown-place"] == 2_000


class Bench:
    """A source by itself, and what it has yielded."""

    def __init__(self, directory: Path, durable: Callable[[Collection[StreamId]], Awaitable[None]]) -> None:
        told = load_agent_config(directory).sources[0]
        self.gauge = SourceGauge()
        context = SourceContext(SystemClock(), lambda stream: 0, directory, durable, self.gauge)
        self.source = build_source(told.kind, typed_source(told), context)
        self.found: list[Event] = []

    async def run(self) -> None:
        async with aclosing(self.source.events()) as events:
            async for event in events:
                self.found.append(event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.run())
        try:
            await self.until(lambda: self.gauge.connected)
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def until(self, good: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not good():
                await asyncio.sleep(0.01)


async def test_what_is_not_durable_is_not_acknowledged_and_comes_again(tmp_path: Path, broker: Mosquitto) -> None:
    directory = device(tmp_path / "device", broker.port)
    asked: list[set[StreamId]] = []
    done: list[set[StreamId]] = []
    gate = asyncio.Event()

    async def durable(streams: Collection[StreamId]) -> None:
        asked.append(set(streams))
        await gate.wait()
        done.append(set(streams))

    bench = Bench(directory, durable)
    async with bench.running():
        await publish(broker.port, messages(200))
        await bench.until(lambda: len(bench.found) == 200 and asked)
    async with bench.running():
        await bench.until(lambda: bench.gauge.duplicates == 200)
    assert len(bench.found) == 200, "the same process knows them"
    restarted = Bench(directory, durable)
    gate.set()
    async with restarted.running():
        await restarted.until(lambda: len(restarted.found) == 200)
        await restarted.until(lambda: done and not restarted.source._acknowledger._numbers)
    assert restarted.found == bench.found
    assert done[0] == {StreamId("vitals-bed-1")}
    last = Bench(directory, durable)
    async with last.running():
        await publish(broker.port, messages(1, 501))
        await last.until(lambda: last.found)
    assert len(last.found) == 1, "what was acknowledged does not come again"


async def test_a_long_queue_of_a_broker_without_bounds_is_worked_off(tmp_path: Path, broker: Mosquitto) -> None:
    """mosquitto 2.0.11 sends all of a queue once some of it is acknowledged, and again at every connection."""
    directory = device(tmp_path / "device", broker.port)
    first = Bench(directory, at_once)
    async with first.running():
        pass
    await publish(broker.port, messages(3_000))
    async with first.running():
        await first.until(lambda: len(first.found) >= 300)
    async with first.running():
        await first.until(lambda: len(first.found) >= 3_000)
    numbers = [event.time_ns // 1_000_000 - T0_MS for event in first.found if isinstance(event, Record)]
    assert numbers == [1_000 * number for number in range(3_000)]


async def at_once(streams: Collection[StreamId]) -> None:
    await asyncio.sleep(0.02)
