"""`bedside agent run` as a ward's listener: TLS, ADT over streams of others, and what a kill may not lose or double."""

import asyncio
import signal
import socket
from contextlib import closing, suppress

import pytest

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.core.ids import StreamId
from mllp_peers import certificates, framed, sender
from ports import free_port

CONFIG = """\
[link]
enabled = false
[[sources]]
kind = "mllp"
name = "ward"
[sources.options]
listen = "127.0.0.1:{port}"
{options}
[sources.options.beds]
"ICU^3" = {{ stream = "bed-3", session_streams = ["wrist"] }}
"ICU^4" = "bed-4"
[[sources]]
kind = "replay"
name = "wrist"
[sources.options]
stream = "wrist"
data = "signal.npz"
speed = 1.0
loop = true
"""
TLS = 'certificate = "own/own.pem"\nkey = "own/own.key"'


class Ward:
    def __init__(self, device, options: str = "") -> None:
        self.port = free_port()
        self.device = device
        (device.path / "agent.toml").write_text(CONFIG.format(port=self.port, options=options))

    def start(self) -> None:
        self.device.start()
        self.device.await_value(self.listens, bool)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def reader(self) -> closing[BufferReader]:
        key = load_key_ring(self.device.path / "state" / "identity")
        return closing(BufferReader(self.device.path / "state" / "buffer.db", key))

    def rates(self, bed: str) -> list[float]:
        with self.reader() as reader:
            found = [reader.records(StreamId(bed), one.session) for one in reader.sessions(StreamId(bed))]
            return sorted(record.values["heart_rate"] for records in found for record in records)

    def sessions(self, stream: str) -> list[tuple[str, bool]]:
        with self.reader() as reader:
            return [(one.origin, one.closed_ns is None) for one in reader.sessions(StreamId(stream))]


def message(number: int, kind: str = "ORU^R01", place: str = "ICU^3") -> bytes:
    head = f"MSH|^~\\&|MON|WARD|||20260301080000||{kind}|{number}|P|2.6\rEVN||{{now}}\rPV1||I|{place}\r"
    obx = f"OBX|1|NM|8867-4^^LN||{number}|/min||||F|||{{now}}\r" if kind.startswith("ORU") else ""
    return (head + obx).encode()


def at(sent: bytes, now_s: float) -> bytes:
    from datetime import UTC, datetime

    return sent.replace(b"{now}", f"{datetime.fromtimestamp(now_s, UTC):%Y%m%d%H%M%S}+0000".encode())


@pytest.mark.system
def test_a_message_whose_sender_saw_no_answer_is_stored_once_whenever_the_agent_is_killed(device) -> None:
    ward = Ward(device)

    async def send_until_killed(number: int, wait_s: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", ward.port)
        writer.write(framed(at(message(number), 1_772_352_000 + number)))
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.readuntil(b"\x1c\r"), wait_s)
        device.stop(signal.SIGKILL)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def send_again(number: int) -> None:
        async with sender(ward.port) as send:
            assert await send(at(message(number), 1_772_352_000 + number)) == ("AA", str(number))

    ward.start()
    for number, wait_s in enumerate((0.0, 0.01, 0.03, 10.0), 60):
        asyncio.run(send_until_killed(number, wait_s))
        ward.start()
        asyncio.run(send_again(number))
    device.stop(signal.SIGKILL)
    assert ward.rates("bed-3") == [60.0, 61.0, 62.0, 63.0]


@pytest.mark.system
def test_over_tls_an_admission_opens_sessions_on_the_streams_of_another_source(device) -> None:
    own = certificates(device.path / "own")
    ward = Ward(device, TLS)
    ward.start()
    device.await_value(lambda: len(ward.sessions("wrist")), lambda count: count > 0)

    async def admit_and_discharge() -> None:
        now_s = device.path.stat().st_mtime + 3_600  # later than all that is there: the arrival bounds it
        async with sender(ward.port, tls=own.client()) as send:
            assert await send(at(message(1, "ADT^A01"), now_s)) == ("AA", "1")
            opened = [ward.sessions(stream) for stream in ("bed-3", "wrist")]
            assert [sessions[-1] for sessions in opened] == [("adt", True)] * 2
            assert opened[1][-2][1] is False, "who lay there before is another person"
            assert await send(at(message(2, "ADT^A03"), now_s)) == ("AA", "2")
            assert ("adt", False) in ward.sessions("bed-3")
            assert ("adt", True) not in ward.sessions("wrist")
            assert await send(b"MSH|^~\\&|A||||||ORU^R01\r") == ("AA", "")

    asyncio.run(admit_and_discharge())
    assert "4711" not in (device.path / "log.txt").read_text()
    assert device.stop() == 0
