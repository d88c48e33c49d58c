"""Heat and power."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bedside.agent.doctor.configuration import config_of
from bedside.agent.health.kernel import read_kernel
from bedside.agent.health.machine import temperature_mc
from bedside.agent.training.settings import GatesConfig
from bedside.service.doctor.check import Check, Finding, Place, bad, doubtful, good


def _heat(place: Place, reading_mc: int | None = None) -> Iterator[Finding]:
    config = config_of(place)
    limit_c = (config.training.gates if config is not None else GatesConfig()).temperature_c
    facts = read_kernel(place.root / "sys", place.root / "proc")
    now_mc = reading_mc if reading_mc is not None else temperature_mc()
    words = f"{now_mc / 1000:.0f} °C" if now_mc is not None else ""
    if facts.undervoltage:
        yield bad(
            "the supply's voltage is too low: cards are damaged so", "use the power supply that the board asks for"
        )
    if facts.throttled:
        yield doubtful("the processor is slowed down, by heat or for want of power" + (f" ({words})" if words else ""))
    elif now_mc is not None and now_mc > limit_c * 1000:
        yield doubtful(f"{words}, above the {limit_c:g} °C at which training waits")
    elif not facts.undervoltage and (words or facts.throttled is not None):
        yield good(words or "not slowed down")


HEAT: Final = Check(
    "heat",
    "temperature, throttling and undervoltage, where the kernel tells of them",
    "give it air or a heat sink",
    _heat,
)
