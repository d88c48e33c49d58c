"""What the component `sinks` says of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bedside.agent.health.facts import SinkFacts
from bedside.agent.health.inputs import few
from bedside.service.health import Level

STALLED_S: Final = 300.0
"""Seconds without a delivery after which a sink that has something to deliver counts as failing."""
TOLD_S: Final = 3_600.0
"""Seconds for which rows that were left out are told of; they are counted for ever."""


def judge_sinks(sinks: Sequence[SinkFacts]) -> tuple[Level, str]:
    """The state of `sinks`: degraded while one delivers nothing, and for an hour after one has left rows out."""
    told = [
        f"sink {sink.name} has delivered nothing for {sink.stalled_s / 60:.0f} minutes: {sink.last_error}".rstrip(": ")
        for sink in sinks
        if sink.stalled_s > STALLED_S
    ]
    told += [
        f"sink {sink.name} left rows out: {sink.skipped} skipped and {sink.refused} refused so far"
        for sink in sinks
        if sink.left_out_age_s is not None and sink.left_out_age_s <= TOLD_S
    ]
    if told:
        return Level.DEGRADED, few(told)
    return Level.OK, "deliver" if sinks else "none is configured"
