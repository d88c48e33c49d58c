"""The link's own troubles: damaged files, answers that nobody thought of, defects. Samples are taken all the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from bedside.agent.config import load_agent_config
from bedside.agent.daemon import Agent
from bedside.agent.health.pulse import Pulse
from bedside.agent.rounds.client import RoundClient
from bedside.agent.rounds.journal import Journal
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.settings import RoundSettings
from bedside.agent.uplink import Uplink
from bedside.core.errors import BedsideError, StoreError
from bedside.proto.v1.device_pb2 import HeartbeatAnswer
from bedside.service.identity import Identity
from bedside.service.platform import SystemClock, SystemEntropy
from enrolled import enrol
from quiet_machine import quiet_trainer

CLOCK, ENTROPY = SystemClock(), SystemEntropy()
DEADLINE_S = 20.0
JUNK = b"\xff\x00 this is not what it was" * 9


class Reports:
    """What was said of the components, and a way to wait for it."""

    def __init__(self) -> None:
        self.errors: list[BedsideError | None] = []
        self._changed = asyncio.Event()

    def __call__(self, component: str, error: BedsideError | None) -> None:
        assert component == "link"
        self.errors.append(error)
        self._changed.set()

    async def until(self, good: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not good():
                self._changed.clear()
                await self._changed.wait()


def uplink(device, identity: Identity, reports: Reports) -> Uplink:
    config = load_agent_config(device.path)
    return Uplink(
        device.path,
        config,
        identity,
        ModelStore(config.state_dir),
        quiet_trainer(config.state_dir),
        CLOCK,
        ENTROPY,
        on_model=nothing,
        report=reports,
        observe=lambda _: pytest.fail("no heartbeat gets that far"),
        detail=lambda: "minimal",
    )


async def nothing(_: object) -> None:
    """A model that nobody serves."""


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("identity/credential.bin", JUNK, "bad-credential"),
        ("identity/credential.bin", b"", "bad-credential"),
        ("identity/pins.json", JUNK, "bad-pins"),
        ("identity/pins.json", b"", "bad-pins"),
        ("identity/sign.key", b"short", "key-size"),
        ("identity/sequence", JUNK, "key-size"),
        ("identity/sequence", b"many", "bad-sequence"),
        ("journal.db", JUNK, "store-open"),
        ("identity/tls.crt", b"", "bad-pem"),
        ("identity/tls.crt", JUNK, "bad-pem"),
        ("identity/tls.key", b"", "bad-pem"),
        ("identity/ca.pem", b"", "bad-pem"),
    ],
)
async def test_a_damaged_file_of_the_link_is_said_and_tried_again(device, world, name, content, code) -> None:
    identity, reports = enrol(device, world), Reports()
    (device.path / "state" / name).write_bytes(content)
    (device.path / "state" / name).chmod(0o600)
    link = uplink(device, identity, reports)
    running = asyncio.create_task(link.run())
    try:
        await reports.until(lambda: len(reports.errors) > 1)
    finally:
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])
        link.close()
    assert {error.code for error in reports.errors if error is not None} == {code}


@pytest.mark.parametrize("address", ["nonsense", "unix:/tmp/x", "h" * 5_000 + ":1", "h:1\nInjected: 1"])
async def test_an_address_that_is_none_is_said_and_tried_again(device, world, address) -> None:
    identity, reports = enrol(device, world), Reports()
    path = identity.directory / "pins.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"service_address": address}))
    link = uplink(device, identity, reports)
    running = asyncio.create_task(link.run())
    try:
        await reports.until(lambda: len(reports.errors) > 1)
    finally:
        running.cancel()
        await asyncio.wait([running])
        link.close()
    assert {error.code for error in reports.errors if error is not None} == {"bad-address"}


@pytest.mark.parametrize("error", [OverflowError("too large"), ValueError("2 ** 64"), OSError(28, "full")])
async def test_whatever_a_round_fails_with_is_reported_and_tried_again(device, world, error) -> None:
    class Link:
        async def get_offer(self, _: object) -> object:
            raise error

    identity, reports = enrol(device, world), Reports()
    config = load_agent_config(device.path)
    journal = Journal.open(config.state_dir)
    client = RoundClient(
        RoundSettings(config.state_dir, config.policy, config.training, 0),
        identity,
        journal,
        ModelStore(config.state_dir),
        Link(),
        identity.sequence(),
        quiet_trainer(config.state_dir),
        clock=CLOCK,
        entropy=ENTROPY,
        on_model=nothing,
        report=reports,
    )
    running = asyncio.create_task(client.run())
    try:
        await reports.until(lambda: len(reports.errors) > 1)
    finally:
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])
        journal.close()
    assert {error.code for error in reports.errors if error is not None} == {"unexpected-error"}
    assert type(error).__name__ in reports.errors[0].sentence
    assert str(error) not in reports.errors[0].sentence


def beating(identity: Identity, link: object, observe: Callable[[], object]) -> Pulse:
    return Pulse(
        identity,
        link,
        identity.sequence(),
        clock=CLOCK,
        entropy=ENTROPY,
        interval_s=5.0,
        observe=observe,
        detail=lambda: "minimal",
    )


async def test_a_heartbeat_that_cannot_be_made_is_tried_again(device, world) -> None:
    def broken() -> object:
        raise OverflowError("a fact does not fit its field")

    pulse = beating(enrol(device, world), None, broken)
    assert await pulse.beat() > 0
    assert pulse.error.code == "unexpected-error"


async def test_a_time_that_no_calendar_has_says_nothing_about_our_clock(device, world, monkeypatch) -> None:
    class Link:
        async def heartbeat(self, _: object) -> HeartbeatAnswer:
            return HeartbeatAnswer(next_call_ms=1_000, server_time_s=2**64 - 1)

    monkeypatch.setattr(Pulse, "_signed", lambda self: None)
    pulse = beating(enrol(device, world), Link(), lambda: None)
    assert await pulse.beat() == 1.0
    assert (pulse.error, pulse.clock_offset_ms) == (None, None)


@pytest.mark.parametrize("name", ["identity/sign.key", "identity/credential.bin", "journal.db", "identity/tls.crt"])
def test_a_device_whose_link_is_damaged_predicts_and_says_why(device, world, name) -> None:
    enrol(device, world)
    (device.path / "state" / name).write_bytes(JUNK)
    (device.path / "state" / name).chmod(0o600)
    device.start()
    device.await_predictions()
    health = json.loads(device.call("health", "--json").stdout)
    unwell = {name: found["state"] for name, found in health["components"].items() if found["state"] != "ok"}
    assert unwell == {"link": "failed"}
    assert "restore" in health["sentence"] or "enrol again" in health["sentence"]
    assert device.stop() == 0


async def test_what_cannot_be_closed_keeps_nothing_else_open(device, monkeypatch) -> None:
    agent = Agent(device.path, load_agent_config(device.path), CLOCK, ENTROPY, "0")
    closed: list[str] = []

    class Server:
        async def stop(self, _: float = 0.0) -> None:
            raise OSError(28, "full")

    def failing(_: object) -> None:
        raise StoreError("file-write", "full")

    monkeypatch.setattr("bedside.agent.health.runs.RunNote.end", failing)
    monkeypatch.setattr(Uplink, "close", lambda self: closed.append("journal"))
    monkeypatch.setattr("bedside.agent.buffer.reader.BufferReader.close", lambda self: closed.append("reader"))
    monkeypatch.setattr("bedside.agent.buffer.store.BufferStore.close", lambda self: closed.append("buffer"))
    with pytest.raises(StoreError):
        await agent._close(Server(), Server())
    assert closed == ["buffer", "reader", "journal"]
