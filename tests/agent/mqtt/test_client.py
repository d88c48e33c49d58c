"""The connection: what waits is bounded, and what a broker refuses is said in words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from paho.mqtt.client import MQTTMessage

from bedside.agent.mqtt import client as module
from bedside.agent.mqtt.broker import Broker, broker_of
from bedside.agent.mqtt.client import BrokerClient, connected
from bedside.core.errors import ConfigError, UnavailableError
from bedside.service.platform import SystemClock

GRANTED = bytes.fromhex("200300 00 00")
"""CONNACK of MQTT 5 without properties."""


def broker(port: int = 1, **options: object) -> Broker:
    told = {"ca": "", "client_certificate": "", "client_key": "", "user": "", "password": "", "plaintext": False}
    return broker_of(f"127.0.0.1:{port}", "gateway", Path("/nowhere"), **told | {"tls": False} | options)


def unconnected() -> BrokerClient:
    return BrokerClient(broker(), SystemClock(), password=None, tls=None, session_s=60)


def arrive(client: BrokerClient, qos: int, topic: bytes = b"a", payload: bytes = b"1") -> None:
    message = MQTTMessage(7, topic)
    message.qos, message.payload = qos, payload
    client._on_message(client._client, None, message)


@pytest.mark.parametrize("bound", [{"MAX_WAITING": 2}, {"MAX_WAITING_BYTES": 100}])
async def test_nothing_is_read_while_too_much_waits_and_nothing_is_dropped(
    bound: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bound.items():
        monkeypatch.setattr(module, name, value)
    published = b"".join(bytes.fromhex("304200016100") + bytes([number] * 62) for number in range(50))
    async with answering(GRANTED + published, stays=True) as port, connected(broker(port), SystemClock()) as client:
        taken: list[int] = []
        async with asyncio.timeout(20):
            while len(taken) < 50:
                await asyncio.sleep(0.01)
                assert len(client._inbox) <= 2
                taken += [message.payload[0] for message in await client.arrived()]
    assert taken == list(range(50))


async def test_a_topic_that_is_no_text_is_nobodys() -> None:
    client = unconnected()
    arrive(client, 0, topic=b"\xff\xfe")
    assert [message.topic for message in await client.arrived()] == [""]


@asynccontextmanager
async def answering(answer: bytes, *, stays: bool = False) -> AsyncIterator[int]:
    """A peer that says this to whoever says something, and hangs up, unless it stays until it is left."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1_024)
            writer.write(answer)
            await writer.drain()
            if stays:
                await reader.read()
        finally:  # also when the client hangs up first, or the test has ended before this
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (bytes.fromhex("20020001"), "mqtt-refused", "does not speak MQTT 5"),
        (bytes.fromhex("2003008600"), "mqtt-refused", "bad user name or password"),
        (bytes.fromhex("2003008700"), "mqtt-refused", "not authorized"),
        (bytes.fromhex("2003008500"), "mqtt-refused", "client_id is not valid"),
        (GRANTED, "mqtt-away", "lost"),
        (GRANTED + bytes.fromhex("e0028e00"), "mqtt-refused", "another client has the same client_id"),
        (GRANTED + bytes.fromhex("30ffffffffff"), "mqtt-refused", "breaks the protocol"),
    ],
)
async def test_what_a_broker_says_becomes_a_sentence(answer: bytes, code: str, words: str) -> None:
    async with answering(answer) as port:
        with pytest.raises(UnavailableError) as caught:
            async with asyncio.timeout(20), connected(broker(port), SystemClock()) as client:
                await client.arrived()
    assert caught.value.code == code
    assert words in caught.value.sentence
    assert caught.value.remedy


async def test_a_broker_that_is_not_there_is_away() -> None:
    with pytest.raises(UnavailableError) as caught:
        async with connected(broker(1), SystemClock()):
            pass
    assert caught.value.code == "mqtt-away"
    assert "127.0.0.1:1" in caught.value.sentence


async def test_a_password_and_certificates_that_cannot_be_read_are_named() -> None:
    for options, code in (
        ({"user": "u", "password": "absent"}, "secret-missing"),
        ({"tls": True, "ca": "absent.pem"}, "mqtt-tls"),
    ):
        with pytest.raises(ConfigError) as caught:
            async with connected(broker(1, **options), SystemClock()):
                pass
        assert caught.value.code == code
