"""The page on MQTT: its configuration is one, and it names every option and kind of payload."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec

from bedside.agent.config import SourceConfig
from bedside.agent.kinds import options_of
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.mqtt.source import AnyPayload, MqttOptions, MqttSource
from bedside.agent.sources.registry import build_source, typed_source
from bedside.service.platform import SystemClock

PAGE = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text()


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
