"""The sink of MQTT messages against a real broker."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path

import aiomqtt
import msgspec
import pytest

from bedside.agent.sinks.kind import AwayError, SinkContext
from bedside.agent.sinks.mqtt import KIND, MqttSink, MqttSinkOptions
from bedside.agent.sinks.outgoing import ADVISORY, Outgoing, SentPrediction
from bedside.core.errors import ConfigError
from bedside.service.platform import SystemClock, SystemEntropy
from mosquitto_broker import Mosquitto, mosquitto, needs_mosquitto

DECIDED = SentPrediction("afib", 0.93, 10**18, 10**18 + 10**9, "ecg", b"\x0a" * 32)
ROW = Outgoing(7, uuid.UUID(int=1), uuid.UUID(int=2), "device-1", "ecg", "ICU^3", DECIDED)


def made(path: Path, port: int = 1883, **options: object) -> MqttSink:
    context = SinkContext(SystemClock(), SystemEntropy(), path, "device-1")
    told = {"name": "out", "broker": f"127.0.0.1:{port}", "client_id": "out", "tls": False, **options}
    sink = KIND.build(msgspec.convert(told, MqttSinkOptions), context)
    assert isinstance(sink, MqttSink)
    return sink


@pytest.fixture
def broker(tmp_path: Path):
    with mosquitto(tmp_path / "broker") as running:
        yield running


@needs_mosquitto
async def test_a_row_is_published_and_acknowledged_and_a_broker_that_was_away_is_found_again(
    tmp_path: Path, broker: Mosquitto
) -> None:
    sink = made(tmp_path, broker.port, topic="wards/{subject}/{kind}", subjects={"ecg": "icu/3"})
    row = replace(ROW, subject="icu/3")
    async with aiomqtt.Client("127.0.0.1", broker.port) as reader:
        await reader.subscribe("wards/#", qos=1)
        await sink.send([row])
        message = await anext(reader.messages)
    assert str(message.topic) == "wards/icu/3/prediction"
    said = json.loads(message.payload)
    assert (said["label"], said["message_id"], said["advisory"]) == ("afib", str(row.message_id), ADVISORY)
    assert not message.retain
    broker.stop()
    with pytest.raises(AwayError):
        await sink.send([row])
    broker.start()
    async with aiomqtt.Client("127.0.0.1", broker.port) as reader:
        await reader.subscribe("wards/#", qos=1)
        await sink.send([row])
        again = await anext(reader.messages)
    assert json.loads(again.payload) == said
    await sink.close()


@needs_mosquitto
async def test_what_the_broker_does_not_allow_waits_for_an_administrator(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic readwrite allowed/#\n")
    with mosquitto(tmp_path / "broker", f"allow_anonymous true\nacl_file {tmp_path}/acl\n") as broker:
        sink = made(tmp_path, broker.port)
        with pytest.raises(AwayError, match="Not authorized") as caught:
            await sink.send([ROW])
        assert caught.value.code == "sink-status"
        allowed = made(tmp_path, broker.port, client_id="other", topic="allowed/{device}")
        await allowed.send([ROW])
        await sink.close()
        await allowed.close()


def test_a_preview_shows_topic_and_message_and_opens_nothing(tmp_path: Path) -> None:
    topic, _, message = made(tmp_path, password="absent", user="u").preview([ROW]).partition("\n")
    assert topic == "bedside/device-1/ecg/prediction"
    assert json.loads(message)["confidence"] == 0.93


@pytest.mark.parametrize(
    "wrong",
    [
        {"topic": ""},
        {"topic": "a/+/b"},
        {"topic": "a/{session}"},
        {"topic": "a/{"},
        {"topic": "$SYS/x"},
        {"subjects": {"ecg": "icu/#"}},
        {"broker": "broker.example:1883"},
        {"broker": "unix:/run/x"},
        {"client_id": ""},
        {"ca": "ca.pem"},
        {"tls": True, "client_key": "key.pem"},
        {"password": "credential:x"},
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        made(tmp_path, **wrong)
    assert caught.value.code == "sink-config"
    assert caught.value.remedy
