"""The configuration of docs/sensors.md is one that the agent takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec

from bedside.agent.config import SourceConfig
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.registry import build_source, typed_source
from bedside.core.vocabulary.quantities import QUANTITIES
from bedside.service.platform import SystemClock

PAGE = (Path(__file__).parents[2] / "docs" / "sensors.md").read_text()


def test_every_block_of_the_page_makes_a_source_of_its_kind() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    kinds = []
    for block in blocks:
        for entry in tomllib.loads(block)["sources"]:
            config = msgspec.convert(entry, SourceConfig)
            context = SourceContext(SystemClock(), lambda _stream: 0, Path("/"))
            assert build_source(config.kind, typed_source(config), context).name == config.name
            kinds.append(config.kind)
    assert kinds == ["ble", "iio", "iio", "ivy450c", "serial"]


def test_the_fields_that_the_page_names_are_those_of_the_vocabulary() -> None:
    named = {
        "heart_rate",
        "rr_interval",
        "spo2",
        "pulse_rate",
        "temp_body",
        "nibp_systolic",
        "nibp_pulse_rate",
        "cuff_pressure",
        "perfusion_index",
    }
    assert named <= set(QUANTITIES)
    assert all(f"`{one}`" in PAGE for one in named)
