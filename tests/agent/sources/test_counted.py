"""What the supervisor counts of each source, from which a device's account is made."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np

from bedside.agent.sources.supervisor import Supervisor
from bedside.core.samples import Block, Event, Mark, Record, Unmapped
from bedside.service.platform import SystemClock

T0 = 1_700_000_000_000_000_000


class Says:
    name = "ward"

    async def events(self) -> AsyncIterator[Event]:
        yield Record("bed", T0, {"hr": 60.0, "spo2": 97.0, "temp": float("nan")}, {})
        yield Record("bed", T0 + 1, {"hr": 61.0}, {})
        yield Block("ecg", T0, 50.0, np.zeros((7, 2), np.int16))
        yield Mark("bed", T0, T0 + 1, "rest", "ward")
        for number in range(3):
            yield Unmapped(f"invented-{number}", "unknown-code", "puls", T0, 5)


async def test_values_and_what_was_not_understood_are_counted_under_the_sources_own_name() -> None:
    heard: list[Event] = []
    supervisor = Supervisor([Says()], heard.append, SystemClock())
    await supervisor.run()
    health = supervisor.health["ward"]
    assert (health.records, health.values, health.blocks, health.samples) == (2, 4, 1, 7)
    assert (health.marks, health.unmapped) == (1, 15)
    assert {event.source for event in heard if isinstance(event, Unmapped)} == {"ward"}
