"""The MLLP listener in one process: conversations with python-hl7 and with our own client, and hostile peers."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress

import pytest

from bedside.agent.config import SourceConfig
from bedside.agent.sinks.hl7.mllp_client import ClientTls, MllpClient
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.mllp import listener as mllp_listener
from bedside.agent.sources.mllp import source as mllp_source
from bedside.agent.sources.registry import build_source, typed_source
from bedside.core.errors import ConfigError, StoreError, UnavailableError
from bedside.core.samples import Record, Unmapped
from bedside.service.link.address import Address
from bedside.service.platform import SystemClock
from mllp_peers import certificates, framed, sender
from ports import free_port

DEADLINE_S = 20.0


def message(number: int = 1, kind: str = "ORU^R01", body: str = "", end: str = "\r", rate: int = 61) -> bytes:
    head = f"MSH|^~\\&|MON|WARD|BED|HOSP|20260301080000||{kind}|{number}|P|2.6"
    obx = f"OBX|1|NM|8867-4^^LN||{rate}|/min||||F|||202603010800{number % 60:02}"
    return (end.join((head, "PID|||4711||No^Body", "PV1||I|ICU^3", body or obx)) + end).encode()


class Ward:
    """A listener with its consumer, and a disk that does as told."""

    def __init__(self, folder, **options) -> None:
        self.port = free_port()
        self.events = []
        self.asked = []
        self.disk = asyncio.Event()
        self.disk.set()
        self.refuses = False
        self.context = SourceContext(SystemClock(), lambda stream: 0, folder, self.durable)
        told = {"listen": f"127.0.0.1:{self.port}", "beds": {"ICU": "icu"}} | options
        config = SourceConfig(kind="mllp", name="ward", options=told)
        self.source = build_source("mllp", typed_source(config), self.context)

    async def durable(self, streams) -> None:
        self.asked.append(sorted(streams))
        await self.disk.wait()
        if self.refuses:
            raise StoreError("not-kept", "the disk has refused it")

    @property
    def gauge(self):
        return self.context.gauge

    def rates(self) -> list[float]:
        return [event.values["heart_rate"] for event in self.events if isinstance(event, Record)]

    def left(self) -> list[tuple[str, str, int]]:
        return [(one.reason, one.what, one.count) for one in self.events if isinstance(one, Unmapped)]

    async def consume(self) -> None:
        async for event in self.source.events():
            self.events.append(event)


async def until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.002)


@asynccontextmanager
async def running(folder, **options):
    ward = Ward(folder, **options)
    task = asyncio.create_task(ward.consume())
    try:
        await until(lambda: ward.gauge.connected is not None or task.done())
        yield ward
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def raw(port: int, local: str = "127.0.0.1"):
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(local, 0))


async def ended(reader) -> bytes:
    """What comes before the other side ends the connection."""
    with suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), DEADLINE_S)
    return b""


async def test_a_message_is_acknowledged_once_it_is_on_the_disk(tmp_path) -> None:
    async with running(tmp_path) as ward, sender(ward.port) as send:
        ward.disk.clear()
        answer = asyncio.create_task(send(message(7)))
        await until(lambda: ward.asked)
        assert (ward.rates(), ward.asked, answer.done()) == ([61.0], [["icu"]], False)
        ward.disk.set()
        assert await answer == ("AA", "7")
        assert ward.gauge.connected
        assert ward.gauge.detail == "1 connected"
        assert ward.gauge.clock_offset_s < 0


async def test_a_sender_that_connects_for_each_message_is_away_after_a_while(tmp_path, monkeypatch) -> None:
    async with running(tmp_path) as ward:
        assert ward.gauge.connected is False
        async with sender(ward.port) as send:
            assert await send(message()) == ("AA", "1")
        await until(lambda: ward.gauge.detail == "0 connected")
        assert ward.gauge.connected
    monkeypatch.setattr(mllp_source, "LINGER_S", 0.05)
    async with running(tmp_path) as ward:
        async with sender(ward.port) as send:
            assert await send(message()) == ("AA", "1")
        await until(lambda: ward.gauge.connected is False)
    assert ward.gauge.connected is None


async def test_while_the_disk_refuses_a_sender_keeps_its_message_and_it_is_taken_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(mllp_source, "PATIENCE_S", 0.02)
    async with running(tmp_path) as ward, sender(ward.port) as send:
        ward.disk.clear()
        assert await send(message(7)) == ("AE", "7")
        assert await send(message(7)) == ("AE", "7")
        ward.disk.set()
        monkeypatch.setattr(mllp_source, "PATIENCE_S", 20.0)
        assert await send(message(7)) == ("AA", "7")
        assert (ward.rates(), ward.gauge.duplicates) == ([61.0], 2)


async def test_what_the_disk_let_go_is_taken_again(tmp_path) -> None:
    async with running(tmp_path) as ward, sender(ward.port) as send:
        ward.refuses = True
        assert await send(message(7)) == ("AE", "7")
        ward.refuses = False
        assert await send(message(7)) == ("AA", "7")
        assert ward.rates() == [61.0, 61.0], "the buffer knows which of them it has"


async def test_the_same_bytes_are_taken_once_from_one_peer_and_only_the_same(tmp_path) -> None:
    async with running(tmp_path) as ward:
        async with sender(ward.port) as send:
            assert [await send(message(1)) for _ in range(2)] == [("AA", "1")] * 2
        async with sender(ward.port) as send:
            assert await send(message(1)) == ("AA", "1")
            assert await send(message(1, rate=62)) == ("AA", "1")
        async with sender(ward.port, local="127.0.0.2") as send:
            assert await send(message(1)) == ("AA", "1")
        assert (ward.rates(), ward.gauge.duplicates) == ([61.0, 62.0, 61.0], 2)


async def test_the_window_of_known_messages_is_bounded(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bedside.agent.sources.mllp.window.MESSAGES_OF_ONE_PEER", 2)
    monkeypatch.setattr("bedside.agent.sources.mllp.window.PEERS", 2)
    async with running(tmp_path) as ward:
        async with sender(ward.port) as send:
            for number in (1, 2, 3, 2, 1):
                await send(message(number))
        assert ward.gauge.duplicates == 1
        for last in (2, 3):
            async with sender(ward.port, local=f"127.0.0.{last}") as send:
                await send(message(1))
        assert list(ward.source._window._peers) == ["127.0.0.2", "127.0.0.3"]


async def test_what_no_second_try_would_mend_is_acknowledged_and_counted(tmp_path) -> None:
    async with running(tmp_path) as ward, sender(ward.port) as send:
        assert await send(message(1).replace(b"ICU^3", b"ER^1")) == ("AA", "1")
        assert await send(message(2, kind="ORM^O01")) == ("AA", "2")
        assert await send(message(3, body="OBX|1|NM|MOOD^^L||7")) == ("AA", "3")
    assert ward.left() == [
        ("unknown-place", "*:1^PV1-3", 1),
        ("not-wanted", "ORM^O01", 1),
        ("unknown-code", "MOOD^L", 1),
    ]
    assert ward.asked == [[], [], []], "what was left out is durable too before its sender forgets it"


async def test_what_cannot_be_read_is_rejected_and_counted_once(tmp_path) -> None:
    async with running(tmp_path) as ward, sender(ward.port) as send:
        wide = message(7, body="OBX" + "|" * 300)
        assert await send(wide) == ("AR", "7")
        assert await send(wide) == ("AR", "7")
        assert await send(b"hello") == ("AR", "")
        assert await send(message(8)) == ("AA", "8")
    assert ward.left() == [("bad-message", "hl7-size", 1), ("bad-message", "hl7-header", 1)]


async def test_dirty_framing_is_understood_and_each_message_answered_in_order(tmp_path) -> None:
    async with running(tmp_path) as ward:
        reader, writer = await raw(ward.port)
        bare = message(1, end="\n") + b"\x1c\n"  # no start byte, LF everywhere
        writer.write(
            bare + framed(message(2)) + framed(message(3, end="\r\n")) + b"\x0bMSH|cut off" + framed(message(4))
        )
        answers = [await reader.readuntil(b"\x1c\r") for _ in range(4)]
        assert [answer.rsplit(b"|", 1)[1][:1] for answer in answers] == [b"1", b"2", b"3", b"4"]
        assert len(ward.asked) == 1, "what came together is committed together"
        writer.close()
    assert len(ward.rates()) == 4
    assert ward.left() == [("bad-message", "mllp-cut", 1)]


async def test_a_sender_that_goes_away_loses_nothing_and_doubles_nothing(tmp_path) -> None:
    async with running(tmp_path) as ward:
        ward.disk.clear()
        _, writer = await raw(ward.port)
        writer.write(framed(message(7)))
        await until(lambda: ward.asked)
        writer.transport.abort()
        ward.disk.set()
        async with sender(ward.port) as send:
            assert await send(message(7)) == ("AA", "7")
    assert (ward.rates(), ward.gauge.duplicates) == ([61.0], 1)


async def test_our_own_client_is_understood_and_old_character_sets_too(tmp_path) -> None:
    async with running(tmp_path, charset="8859/1") as ward:
        client = MllpClient(Address("127.0.0.1", ward.port))
        micro = message(1, body="OBX|1|NM|8480-6^^LN||120|mm[Hg]^\u00b5").decode().encode("latin-1")
        assert (await client.send(micro)).accepted
        assert not (await client.send(message(2, body="OBX" + "|" * 300))).accepted
        await client.close()
        assert ward.source.replaced == 0
    async with running(tmp_path) as ward, sender(ward.port) as send:
        await send(micro)
        assert (ward.source.replaced, ward.gauge.detail) == (1, "1 connected, 1 characters replaced")


# --- who may come in


async def test_only_allowed_networks_may_connect(tmp_path) -> None:
    async with running(tmp_path, allow=["10.0.0.0/8", "127.0.0.1/32"]) as ward, sender(ward.port) as send:
        reader, writer = await raw(ward.port, "127.0.0.2")
        assert await ended(reader) == b""
        writer.close()
        assert await send(message()) == ("AA", "1")
        assert ward.gauge.detail == "1 connected, 1 connections refused"


async def test_tls_shows_a_certificate_and_may_ask_for_one(tmp_path) -> None:
    own, other = certificates(tmp_path / "own"), certificates(tmp_path / "other")
    files = {"certificate": "own/own.pem", "key": "own/own.key", "client_ca": "other/ca.pem"}
    async with running(tmp_path, **files) as ward:
        client = MllpClient(Address("127.0.0.1", ward.port), ClientTls(own.ca, other.certificate, other.key))
        assert (await client.send(message())).accepted
        await client.close()
        for tls in (None, ClientTls(own.ca), ClientTls(own.ca, own.certificate, own.key)):
            stranger = MllpClient(Address("127.0.0.1", ward.port), tls)
            with pytest.raises(UnavailableError):
                await stranger.send(message(2))
        assert len(ward.rates()) == 1


@pytest.mark.parametrize(
    "options",
    [
        *({"listen": listen} for listen in ("0.0.0.0:2575", "[::]:2575", ":2575", "", "0:2575", "ward.example:2575")),
        *({"listen": listen} for listen in ("127.0.0.1", "127.0.0.1:0", "unix:/run/mllp", "224.0.0.1:2575")),
        *({"listen": f"{host}:2575"} for host in ("[::ffff:0.0.0.0]", "[::ffff:224.0.0.1]", "255.255.255.255")),
        {"allow": ["10.0.0.1/8"]},
        {"connections": 0},
        {"connections": 1_001},
        {"idle_s": 0.5},
        {"message_kib": 2_000},
        {"charset": "EBCDIC"},
        {"certificate": "own.pem"},
        {"client_ca": "ca.pem"},
        {"certificate": "none.pem", "key": "none.key"},
        {"stream": "bed"},
        {"beds": {}},
        {"waves": {"131330": "ecg"}},
        {"time_zone": "Mars/Olympus"},
        {"test_messages": "maybe"},
        {"fields": {"heart_rate": {"low": 5.0, "high": 1.0}}},
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_listens(options, tmp_path) -> None:
    with pytest.raises(ConfigError) as caught:
        asyncio.run(_made(tmp_path, options))
    assert caught.value.remedy
    assert caught.value.sentence.startswith("source ")


async def _made(folder, options) -> Ward:
    return Ward(folder, **options)


def test_every_stream_of_every_bed_is_told(tmp_path) -> None:
    beds = {"A": "a", "B": {"stream": "b", "waves": {"1": "b-1"}, "session_streams": ["b-ecg"]}}
    config = SourceConfig(kind="mllp", name="ward", options={"listen": "127.0.0.1:1", "beds": beds})
    assert typed_source(config).streams() == ("a", "b", "b-1")


async def test_an_address_that_is_taken_is_tried_again_later(tmp_path) -> None:
    ward = Ward(tmp_path)
    with socket.create_server(("127.0.0.1", ward.port)), pytest.raises(UnavailableError, match="mllp-listen"):
        await ward.consume()
    task = asyncio.create_task(ward.consume())
    await until(lambda: ward.gauge.connected is not None)
    async with sender(ward.port) as send:
        assert await send(message()) == ("AA", "1")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


# --- hostile peers


async def test_an_endless_message_and_noise_end_their_own_connection_alone(tmp_path) -> None:
    async with running(tmp_path, message_kib=64) as ward, sender(ward.port) as send:
        endless, endless_writer = await raw(ward.port)
        noise, noise_writer = await raw(ward.port)
        endless_writer.write(b"\x0bMSH|^~\\&|" + b"x" * 70_000)
        noise_writer.write(bytes(range(256)))
        assert b"|AR|" in await ended(endless)
        assert await ended(noise) == b""
        assert await send(message()) == ("AA", "1")
        endless_writer.close()
        noise_writer.close()
    assert sorted(ward.left()) == [("bad-message", "mllp-noise", 1), ("bad-message", "mllp-size", 1)]


async def test_a_message_that_drips_is_cut_off_in_time_and_a_silent_connection_is_not(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(mllp_listener, "MESSAGE_S", 0.2)
    async with running(tmp_path) as ward, sender(ward.port) as silent:
        reader, writer = await raw(ward.port)

        async def drip() -> None:
            with suppress(ConnectionError):
                for byte in framed(message()) * 1_000:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        assert await ended(reader) == b""
        dripping.cancel()
        writer.close()
        assert ward.rates() == []
        assert await silent(message()) == ("AA", "1")


async def test_a_connection_that_says_nothing_ends(tmp_path, monkeypatch) -> None:
    async with running(tmp_path, idle_s=1) as ward:
        reader, writer = await raw(ward.port)
        assert await ended(reader) == b""
        writer.close()
        await until(lambda: ward.source._listener.connections == 0)


async def test_ten_thousand_connections_of_one_peer_take_nothing_from_another(tmp_path) -> None:
    own = certificates(tmp_path / "own")
    async with running(tmp_path, certificate="own/own.pem", key="own/own.key") as ward:  # noqa: SIM117
        async with sender(ward.port, tls=own.client()) as send:
            held: list[socket.socket] = []
            for number in range(10_000):
                one = socket.socket()
                one.bind(("127.0.0.2", 0))
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", ward.port))
                held.append(one)
                if len(held) > 400:
                    held.pop(0).close()
                if number % 50 == 0:
                    await asyncio.sleep(0)
                    assert ward.source._listener.connections <= 17
                if number % 1_000 == 0:
                    assert await send(message(number)) == ("AA", str(number))
            async with sender(ward.port, tls=own.client()) as another:
                assert await another(message(10_001)) == ("AA", "10001")
            for one in held:
                one.close()
    assert len(ward.rates()) == 11


async def test_a_mistake_of_ours_ends_one_connection_and_is_logged_without_what_was_sent(
    tmp_path, monkeypatch, caplog
) -> None:
    def mistaken(data, charset, hide):
        raise RuntimeError(f"cannot read {data!r}")

    async with running(tmp_path) as ward, sender(ward.port) as send:
        monkeypatch.setattr(mllp_source, "read_message", mistaken)
        reader, writer = await raw(ward.port)
        writer.write(framed(message()))
        assert await ended(reader) == b""
        writer.close()
        monkeypatch.undo()
        assert await send(message(2)) == ("AA", "2")
    (record,) = [one for one in caplog.records if one.message == "connection-failed"]
    assert record.bedside_fields == {"peer": "127.0.0.1", "reason": "RuntimeError"}


async def test_beyond_the_limit_newcomers_are_refused_and_a_peer_replaces_its_own_oldest(tmp_path) -> None:
    async with running(tmp_path, connections=2) as ward:  # noqa: SIM117
        async with sender(ward.port) as send, sender(ward.port, local="127.0.0.2") as other:
            assert await send(message(1)) == ("AA", "1")
            assert await other(message(2)) == ("AA", "2")
            reader, writer = await raw(ward.port, "127.0.0.3")
            assert await ended(reader) == b""
            writer.close()
            assert await send(message(3)) == ("AA", "3")
    async with running(tmp_path, connections=1) as ward:
        first, writer = await raw(ward.port)
        async with sender(ward.port) as send:
            assert await ended(first) == b""
            assert await send(message(1)) == ("AA", "1")
        writer.close()
