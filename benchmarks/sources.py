"""What it costs to take messages: MQTT, HL7 v2 over MLLP, and a sensor board, each by a real agent process.

    .venv/bin/python benchmarks/sources.py --json
    .venv/bin/python benchmarks/sources.py --seconds 1      # quick, to see that it runs

messages  As fast as they are taken: to the broker with many under way, over 16 connections of one message each, or down
          a pty. Rate from the first arrival to the last; CPU is the whole agent process's, by message, with its buffer
          and its commits. Peers in the same run: an aiomqtt subscriber that commits a row per message, and python-hl7's
          server that commits the same rows before it answers.
latency   At a steady pace (50 messages per second, 25 frames): from the moment at which the sender writes to the moment
          at which the source hands over the record or block that it has become; both clocks are the machine's. For MLLP
          also to the acknowledgement, which comes after the commit.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
import numpy as np
from device.directory import make_device
from device.receiving import Taken, is_connected, load, reach, running, taken_by_agent, taken_by_peer
from report import Figure, emit, figure, plain_arguments, table

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from device.senders import (  # noqa: E402 - they need what lies beside the tests
    SECOND_NS,
    T0_NS,
    Board,
    Monitors,
    Publisher,
    Sender,
    paced,
)

from mosquitto_broker import MOSQUITTO, mosquitto  # noqa: E402
from ports import free_port  # noqa: E402
from resident_device import buffer_of, samples_of, values_of  # noqa: E402
from traffic.boards import Pty  # noqa: E402

CONNECTIONS = 16
PER_SECOND = {"mqtt": 2_000, "mllp": 400, "serial": 2_000}
"""Messages of the load, for every second that is asked for."""
PACE_HZ = {"mqtt": 50.0, "mllp": 50.0, "serial": 25.0}
NO_BROKER = "there is no mosquitto here: apt-get install mosquitto"

MQTT = """\
[[sources]]
kind = "mqtt"
name = "mqtt"
[sources.options]
broker = "127.0.0.1:{port}"
client_id = "agent"
tls = false
fields.heart_rate = {{ code = "hr", sent_unit = "/min" }}
fields.spo2 = {{ sent_unit = "%" }}
topics.vitals.stream = "vitals"
topics.vitals.payload = {{ kind = "json", values = {{ hr = "hr", spo2 = "spo2" }}, time = "ts", time_format = "ms" }}
"""
MLLP = '[[sources]]\nkind = "mllp"\nname = "mllp"\noptions = {{ listen = "127.0.0.1:{port}", stream = "vitals" }}\n'
SERIAL = '[[sources]]\nkind = "serial"\nname = "serial"\noptions = {{ stream = "wave", port = "{port}" }}\n'


PEERS = {"mqtt": "aiomqtt, a committed row per message", "mllp": "python-hl7's server, a committed row per message"}
UNITS = {"mqtt": "message", "mllp": "message", "serial": "frame"}


@dataclass(frozen=True)
class Measured:
    """What one kind needed.

    Attributes:
        peer: what the peer needed for the same load; None where there is none.
        latencies_ms: from the write to the record or block.
        answers_ms: to the acknowledgement.
        lost: messages that the buffer does not give back.
    """

    ours: Taken
    peer: Taken | None
    latencies_ms: list[float]
    answers_ms: list[float]
    lost: int
    count: int


@asynccontextmanager
async def publisher(port: int) -> AsyncIterator[Publisher]:
    """Connected to the broker."""
    async with aiomqtt.Client("127.0.0.1", port, identifier="ward", max_inflight_messages=200) as client:
        client.pending_calls_threshold = 1_000  # so many are meant to be under way
        yield Publisher(client)


@asynccontextmanager
async def monitors(port: int) -> AsyncIterator[Monitors]:
    """Connected to whoever listens."""
    links: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        async with asyncio.timeout(30):
            while len(links) < CONNECTIONS:
                try:
                    links.append(await asyncio.open_connection("127.0.0.1", port))
                except OSError:
                    await asyncio.sleep(0.05)
        yield Monitors(links)
    finally:
        for _, writer in links:
            writer.close()


def make(folder: Path, name: str, source: str) -> Path:
    """A device with one source, which never dials out."""
    device = make_device(folder / name, [], [])
    with (device / "agent.toml").open("a") as file:
        file.write(source + "[link]\nenabled = false\n")
    return device


async def by_agent(
    device: Path, kind: str, counts: tuple[int, int], connect: Callable[[], AbstractAsyncContextManager[Sender]]
) -> tuple[Taken, list[float], list[float]]:
    """An agent takes a load, and then messages at a pace."""
    loaded, at_pace = counts
    out = device / "arrivals.npy"
    with running(str(HERE / "device" / "listening.py"), str(device), str(out)) as process:
        if kind == "mqtt":
            await reach(is_connected(device), 1, process)
        async with connect() as sender:
            look = taken_by_agent(device)
            taken = await load(look, process, loaded, lambda: sender.send(0, loaded))
            sent_s = await paced(sender, loaded, at_pace, PACE_HZ[kind])
            await reach(look, loaded + at_pace, process)
        answers_ms = [1e3 * one for one in sender.answers_s] if isinstance(sender, Monitors) else []
    arrivals = np.load(out)
    if kind == "serial":
        arrived_s = list(arrivals["f2"][loaded:])
    else:
        by_time = {int(one["f1"]): float(one["f2"]) for one in arrivals}
        arrived_s = [by_time[T0_NS + (loaded + at) * SECOND_NS] for at in range(at_pace)]
    return taken, [1e3 * (got - sent) for got, sent in zip(arrived_s, sent_s, strict=True)], answers_ms


async def by_peer(
    folder: Path, kind: str, port: int, count: int, connect: Callable[[], AbstractAsyncContextManager[Sender]]
) -> Taken:
    """A peer takes the same load."""
    database = folder / f"{kind}-peer.db"
    with running(str(HERE / "peers" / "plain_receivers.py"), kind, str(port), str(database)) as process:
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        async with connect() as sender:
            return await load(taken_by_peer(database), process, count, lambda: sender.send(0, count))


async def measure_mqtt(folder: Path, counts: tuple[int, int]) -> Measured:
    """QoS 1, acknowledged after the commit; the broker lets as many be under way as a receiver likes."""
    limits = "allow_anonymous true\nmax_inflight_messages 0\nset_tcp_nodelay true\n"
    with mosquitto(folder / "broker", limits) as broker:
        device = make(folder, "mqtt", MQTT.format(port=broker.port))
        ours, latencies, answers = await by_agent(device, "mqtt", counts, lambda: publisher(broker.port))
    with mosquitto(folder / "broker-peer", limits) as broker:
        peer = await by_peer(folder, "mqtt", broker.port, counts[0], lambda: publisher(broker.port))
    return Measured(ours, peer, latencies, answers, _lost(device, sum(counts)), counts[0])


async def measure_mllp(folder: Path, counts: tuple[int, int]) -> Measured:
    """Acknowledged after the commit."""
    port = free_port()
    device = make(folder, "mllp", MLLP.format(port=port))
    ours, latencies, answers = await by_agent(device, "mllp", counts, lambda: monitors(port))
    port = free_port()
    peer = await by_peer(folder, "mllp", port, counts[0], lambda: monitors(port))
    return Measured(ours, peer, latencies, answers, _lost(device, sum(counts)), counts[0])


async def measure_serial(folder: Path, counts: tuple[int, int]) -> Measured:
    """Frames with checksums, through a pty."""
    pty = Pty()

    @asynccontextmanager
    async def board() -> AsyncIterator[Board]:
        made = Board(pty)
        await made.greet()
        yield made

    try:
        device = make(folder, "serial", SERIAL.format(port=pty.port))
        ours, latencies, answers = await by_agent(device, "serial", counts, board)
    finally:
        pty.close()
    with buffer_of(device) as reader:
        lost = sum(counts) - samples_of(reader, "wave") // 10
    return Measured(ours, None, latencies, answers, lost, counts[0])


def _lost(device: Path, sent: int) -> int:
    with buffer_of(device) as reader:
        return sent - values_of(reader, "vitals") // 2


def figures_of(kind: str, found: Measured | None, note: str) -> list[Figure]:
    """The figures of one kind; without values where it could not be measured."""
    unit, peer = UNITS[kind], found.peer if found is not None else None
    beside = {"peer": PEERS[kind]} if kind in PEERS else {}
    shares = {f"p{share}": float(np.percentile(found.latencies_ms, share)) if found else None for share in (50, 99)}

    def against(value: float | None) -> dict[str, Any]:
        return beside | {"peer_value": round(value or 0.0, 1)} if peer is not None else beside

    lost = found.lost if found else None
    figures = [
        figure(
            f"{kind}_{unit}s_per_s", found.ours.rate_hz if found else None, f"{unit}s/s", better="higher", note=note,
            **against(peer.rate_hz if peer else None),
        ),
        figure(
            f"{kind}_cpu_us_per_{unit}", found.ours.cpu_us if found else None, "us of one core", better="lower",
            note="user and system time of the whole process, commits and all", **against(peer.cpu_us if peer else None),
        ),
        *(
            figure(
                f"{kind}_latency_{share}_ms", value, "ms", better="lower",
                note=f"from the sender's write to the record or block, at {PACE_HZ[kind]:g} {unit}s/s",
            )
            for share, value in shares.items()
        ),
        figure(f"{kind}_lost", lost, f"{unit}s", goal=0, better="lower", note="sent, and not in the buffer"),
    ]  # fmt: skip
    if kind == "mllp":
        answer = float(np.percentile(found.answers_ms, 50)) if found else None
        note = "from the sender's write to AA, which comes after the commit"
        figures.append(figure("mllp_answer_p50_ms", answer, "ms", better="lower", note=note))
    return figures


def main() -> None:
    """Measure and print."""
    parser = plain_arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the loads, roughly [10]")
    asked = parser.parse_args()
    figures: list[Figure] = []
    detail: dict[str, Any] = {"seconds": asked.seconds, "load_average": os.getloadavg(), "connections": CONNECTIONS}
    parts = {"mqtt": measure_mqtt, "mllp": measure_mllp, "serial": measure_serial}
    with tempfile.TemporaryDirectory(prefix="bedside-sources-") as name:
        for kind, measure in parts.items():
            counts = (round(PER_SECOND[kind] * asked.seconds), max(5, round(PACE_HZ[kind] * asked.seconds)))
            absent = kind == "mqtt" and MOSQUITTO is None
            found = None if absent else asyncio.run(measure(Path(name), counts))
            note = NO_BROKER if found is None else f"{found.count:,} {UNITS[kind]}s as fast as they are taken"
            figures += figures_of(kind, found, note)
            if not asked.json:
                print(_shown(figures_of(kind, found, note)), flush=True)
    emit("sources", 1, figures, detail)


def _shown(figures: list[Figure]) -> str:
    rows = [[one["name"], one["value"], one["unit"], one.get("peer_value", ""), one["note"]] for one in figures]
    return table(("figure", "value", "unit", "peer", "note"), [[str(cell) for cell in row] for row in rows])


if __name__ == "__main__":
    main()
