"""What becomes of a message, without a broker."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bedside.agent.config import SourceConfig
from bedside.agent.mqtt.client import Arrived
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.mqtt.intake import Taken
from bedside.agent.sources.mqtt.source import MqttSource
from bedside.agent.sources.registry import build_source, typed_source
from bedside.core.errors import BedsideError, ConfigError, UnavailableError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Quality, Record, Unmapped
from bedside.core.vocabulary.reading import as_what
from bedside.service.platform import SystemClock

T_MS = 1_790_000_000_000
NOW_NS = (T_MS + 250) * 1_000_000
VITALS = {
    "stream": "vitals-{1}",
    "places": ["bed-1", "bed-2"],
    "payload": {"kind": "json", "values": {"hr": "hr", "spo2": "spo2"}, "time": "ts", "time_format": "ms"},
}
ECG = {"stream": "ecg", "payload": {"kind": "samples", "rate_hz": 250.0, "unit": "mV", "scale": 0.01, "time": "ms"}}
ONE = {"stream": "one", "payload": {"kind": "number", "code": "{2}", "unit": "%"}}
FIELDS = {"heart_rate": {"code": "hr", "sent_unit": "/min"}, "spo2": {"sent_unit": "%"}}


def made(stored_ns: int = 0, opened: tuple[int, str] | None = None, **options: Any) -> tuple[MqttSource, SourceContext]:
    told = {
        "broker": "127.0.0.1:1883",
        "client_id": "gateway",
        "tls": False,
        "topics": {"ward/+/vitals": VITALS, "ecg": ECG, "room/+/+": ONE},
        "fields": FIELDS,
        **options,
    }
    context = SourceContext(SystemClock(), lambda stream: stored_ns, Path("/"), open_session=lambda stream: opened)
    typed = typed_source(msgspec.convert({"kind": "mqtt", "name": "ward", "options": told}, SourceConfig))
    source = build_source("mqtt", typed, context)
    assert isinstance(source, MqttSource)
    return source, context


def arrived(topic: str, payload: bytes, number: int = 1, *, again: bool = False, qos: int = 1) -> Arrived:
    return Arrived(topic, payload, qos, again, False, number, NOW_NS)


def vitals(**values: object) -> bytes:
    return json.dumps({"ts": T_MS, "hr": 72, "spo2": 97} | values).encode()


def reasons(events: list[Taken]) -> dict[str, int]:
    """By the words that the quarantine keeps: what has not the form of a code is hidden there."""
    return {f"{one.reason} {as_what(one.what)}": one.count for one in events if isinstance(one, Unmapped)}


def test_a_topic_chooses_the_stream_and_the_payload_the_time() -> None:
    source, context = made()
    (record,) = source._intake.take(arrived("ward/bed-2/vitals", vitals()))
    assert record == Record(
        StreamId("vitals-bed-2"),
        T_MS * 1_000_000,
        {"heart_rate": 72.0, "spo2": 97.0},
        {"heart_rate": "/min", "spo2": "%"},
    )
    assert context.gauge.clock_offset_s == -0.25


def test_every_reading_is_accounted_for_and_no_topic_is_shown() -> None:
    source, _ = made()
    take = source._intake.take
    assert reasons(take(arrived("ward/Jane-Doe/vitals", vitals()))) == {"unknown-place ward/+/vitals": 2}
    assert reasons(take(arrived("Jane-Doe", b""))) == {"unknown-place topic^unsubscribed": 1}
    assert reasons(take(arrived("ward/bed-1/vitals", b"\xff"))) == {"bad-message json-form^json": 1}
    assert reasons(take(arrived("ward/bed-1/vitals", vitals(ts="then")))) == {"bad-time hr": 1, "bad-time spo2": 1}
    record, left = take(arrived("ward/bed-1/vitals", vitals(spo2=[1])))
    assert isinstance(record, Record)
    assert record.values == {"heart_rate": 72.0}
    assert isinstance(left, Unmapped)
    assert left.reason == "not-a-number"
    retained = arrived("ward/bed-1/vitals", vitals())._replace(retained=True)
    assert reasons(take(retained)) == {"not-wanted message^retained": 1}


def test_a_message_that_comes_again_is_not_taken_again_and_one_alike_is() -> None:
    source, context = made()
    take, payload = source._intake.take, vitals()
    assert len(take(arrived("ward/bed-1/vitals", payload, 1))) == 1
    assert take(arrived("ward/bed-1/vitals", payload, 1, again=True)) == []
    assert take(arrived("ward/bed-1/vitals", payload, 1, again=True)) == []
    assert context.gauge.duplicates == 2
    assert len(take(arrived("ward/bed-1/vitals", payload, 2))) == 1, "sent twice, not delivered twice"
    assert len(take(arrived("ward/bed-1/vitals", payload, 3, again=True))) == 1, "first seen now"
    assert len(take(arrived("ward/bed-1/vitals", vitals(hr=80), 1, again=True))) == 1, "another under an old number"
    assert len(take(arrived("ward/bed-1/vitals", payload, 3, qos=0))) == 1
    assert context.gauge.duplicates == 2


def test_what_is_remembered_of_messages_is_bounded() -> None:
    source, _ = made()
    for number in range(5_000):
        source._intake.take(arrived("x", b"", number))
    assert len(source._intake._seen) == 1_024


def stretch(time_ms: int, count: int = 25) -> bytes:
    return struct.pack("<Q", time_ms) + np.arange(count, dtype="<i2").tobytes()


def test_samples_become_blocks_of_40_ms_that_never_go_back() -> None:
    source, context = made()
    take = source._intake.take
    blocks = take(arrived("ecg", stretch(T_MS)))
    assert [len(block.values) for block in blocks if isinstance(block, Block)] == [10, 10, 5]
    first = blocks[1]
    assert isinstance(first, Block)
    assert (first.start_ns, first.rate_hz, first.unit, first.scale) == (T_MS * 10**6 + 40_000_000, 250.0, "mV", 0.01)
    assert take(arrived("ecg", stretch(T_MS), 2)) == []
    assert context.gauge.dropped == 25
    assert take(arrived("ecg", stretch(T_MS), 3, again=True)) == []
    assert (context.gauge.dropped, context.gauge.duplicates) == (25, 1)
    late = take(arrived("ecg", stretch(T_MS + 1_000), 4))[0]
    assert isinstance(late, Block)
    assert late.quality == Quality.GAP_BEFORE
    assert reasons(take(arrived("ecg", stretch(5), 5))) == {"bad-time samples": 25}
    day_ms = 86_400_000
    assert reasons(take(arrived("ecg", stretch(T_MS + day_ms), 6))) == {"bad-time samples": 25}
    assert len(take(arrived("ecg", stretch(T_MS + 1_100), 7))) == 3  # and no later one is behind it
    restarted, again = made(stored_ns=(T_MS + day_ms) * 10**6)  # as an older release has stored it
    assert len(restarted._intake.take(arrived("ecg", stretch(T_MS)))) == 3
    for origin, taken in (("adt", 0), ("cli", 3), ("gap", 3)):
        other, _ = made(opened=((T_MS + 100) * 10**6, origin))
        events = other._intake.take(arrived("ecg", stretch(T_MS)))
        assert sum(isinstance(one, Block) for one in events) == taken
        assert reasons(events) == ({} if taken else {"bad-time samples": 25})
    restarted, again = made(stored_ns=(T_MS + 100) * 10**6)
    assert restarted._intake.take(arrived("ecg", stretch(T_MS), again=True)) == []
    assert again.gauge.duplicates == 1


def test_without_a_time_of_its_own_a_message_is_of_its_arrival_and_of_qos_0() -> None:
    source, _ = made()
    assert [source._options.qos(topic) for topic in source._options.topics.values()] == [1, 1, 0]
    (record,) = source._intake.take(arrived("room/7/spo2", b"97", qos=0))
    assert isinstance(record, Record)
    assert (record.time_ns, record.values) == (NOW_NS, {"spo2": 97.0})
    by_arrival, _ = made(clock="arrival")
    assert {by_arrival._options.qos(topic) for topic in by_arrival._options.topics.values()} == {0}
    (late,) = by_arrival._intake.take(arrived("ward/bed-1/vitals", vitals(), qos=0))
    assert isinstance(late, Record)
    assert late.time_ns == NOW_NS


def test_every_stream_that_may_come_is_known_before() -> None:
    source, _ = made()
    assert set(source._options.streams()) == {"vitals-bed-1", "vitals-bed-2", "ecg", "one"}


def topic(text: str = "a/+", **more: object) -> dict[str, object]:
    return {"topics": {text: VITALS | more}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"topics": {}},
        {"topics": {"a/+": VITALS, "a/b": ECG}},
        topic("$SYS/+"),
        topic(places=[]),
        topic(stream="x"),
        topic(stream="{2}"),
        topic("+/+", stream="{1}-{2}"),
        topic(places=["Bed 1"]),
        topic(qos=2),
        topic(payload={"kind": "xml"}),
        topic(payload={"kind": "json"}),
        topic(payload={"kind": "number", "code": "{9}"}),
        {"topics": {"a": ONE | {"qos": 1, "payload": {"kind": "number", "code": "x"}}}},
        {"topics": {"a": VITALS | {"qos": 1, "stream": "x", "places": []}}, "clock": "arrival"},
        {"topics": {"ecg/+": ECG}},
        {"session_s": 0},
        {"session_s": 1 << 33},
        {"time_zone": "Mars/Olympus"},
        {"broker": "broker.example:1883"},
        {"broker": "127.0.0.1"},
        {"client_id": "a b"},
        {"ca": "ca.pem"},
        {"tls": True, "client_certificate": "own.pem"},
        {"password": "secret"},
        {"fields": {"hr": {"low": 2, "high": 1}}},
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BedsideError) as caught:
        made(**wrong)
    assert isinstance(caught.value, ConfigError) or caught.value.code == "bad-id"
    assert caught.value.remedy or caught.value.code == "bad-id"


def test_plaintext_to_another_machine_must_be_said() -> None:
    source, _ = made(broker="broker.example:1883", plaintext=True)
    assert source._broker.tls is None
    protected, _ = made(broker="broker.example:8883", tls=True)
    assert protected._broker.tls is not None


class Granting:
    """A connection that grants some topics, and may have kept a session."""

    def __init__(self, refused: dict[str, str], *, kept: bool = True) -> None:
        self.refused, self.session_kept = refused, kept

    async def subscribe_to(self, filters: object) -> dict[str, str]:
        return self.refused


async def test_topics_that_are_refused_and_a_session_that_was_forgotten_are_said() -> None:
    source, context = made()

    async def detail(client: Granting) -> str:
        await source._subscribe(client)
        assert context.gauge.connected
        return context.gauge.detail

    assert await detail(Granting({}, kept=False)) == "", "the first time there is none"
    assert await detail(Granting({})) == ""
    assert "had no session" in await detail(Granting({}, kept=False))
    told = await detail(Granting({"ecg": "Not authorized"}))
    assert told == "the broker refuses 1 of 3 topic filters: ecg: Not authorized"
    with pytest.raises(UnavailableError, match="none of our topics"):
        await detail(Granting(dict.fromkeys(("ward/+/vitals", "ecg", "room/+/+"), "Not authorized")))


def test_what_the_disk_refused_is_taken_again() -> None:
    source, _ = made()
    (first,) = source._intake.take(arrived("ward/bed-1/vitals", vitals()))
    source._intake.forget()
    assert source._intake.take(arrived("ward/bed-1/vitals", vitals(), again=True)) == [first]
