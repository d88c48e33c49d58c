"""The page on MQTT: its configuration is one, and it names every option and kind of payload."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from bedside.agent.config import SourceConfig
from bedside.agent.kinds import options_of
from bedside.agent.mqtt.client import Arrived
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.mqtt.source import AnyPayload, MqttOptions, MqttSource
from bedside.agent.sources.registry import build_source, typed_source
from bedside.core.samples import Record
from bedside.service.platform import SystemClock

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "mqtt.md").read_text()
ARRIVED_NS = 1_772_006_401_000_000_000


def test_the_configuration_of_the_page_is_one() -> None:
    (told,) = tomllib.loads(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])["sources"]
    options = typed_source(msgspec.convert(told, SourceConfig))
    source = build_source("mqtt", options, SourceContext(SystemClock(), lambda stream: 0, Path("/")))
    assert isinstance(source, MqttSource)
    assert options.streams() == ("vitals-bed-1", "vitals-bed-2", "ecg-bed-1", "lab")


def test_every_option_and_every_kind_of_payload_stands_in_the_page() -> None:
    for payload in AnyPayload.__args__:
        assert f"| `{payload.__struct_config__.tag}` |" in PAGE
        for name in options_of(payload):
            assert f"`{name}`" in PAGE, name
    for name in options_of(MqttOptions):
        assert re.search(rf"`{name}\b|\b{name} = |\b{name}\.", PAGE), name


@pytest.mark.parametrize(
    ("page", "values"), [("mqtt.md", {"heart_rate": 71.0, "spo2": 97.5}), ("sources.md", {"heart_rate": 71.0})]
)
def test_the_message_that_the_page_shows_becomes_what_it_says(page: str, values: dict[str, float]) -> None:
    text = (DOCS / page).read_text()
    tables = [one for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
              for one in tomllib.loads(block).get("sources", []) if one["kind"] == "mqtt"]  # fmt: skip
    (topic,) = re.findall(r"essage on `([^`]+)`", text)
    (payload,) = re.findall(r'\{"ts".*\}', text)
    context = SourceContext(SystemClock(), lambda stream: 0, Path("/"))
    source = build_source("mqtt", typed_source(msgspec.convert(tables[0], SourceConfig)), context)
    assert isinstance(source, MqttSource)
    (record,) = source._intake.take(Arrived(topic, payload.encode(), 1, False, False, 1, ARRIVED_NS))
    assert isinstance(record, Record), record
    assert (record.stream, record.values) == ("vitals-bed-1", values)
