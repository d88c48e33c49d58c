"""`[training]` of `agent.toml`: whether, when and with how much of this device it trains."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from bedside.agent.config_bounds import MAX_MIB, MAX_WAIT_S

ANY_STREAM: Final = "*"


class GatesConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """When the device may train; all of it must hold.

    Attributes:
        temperature_c: no training above it, degrees Celsius.
        while_throttled: whether to train while the processor is throttled or its voltage is low.
        power: `mains`: not on battery; `battery`: also on battery, above `battery_share`; `any`: always.
        battery_share: charge above which training on battery goes on, 0 to 1.
        load_per_core: no training above this one-minute load, per core.
        hours: local hours in which to train, such as `22:00-06:00`; empty = always.
        idle_streams: no training while a session is open on one of these; `*` = on any.
        while_alarm: whether to train while an alarm is raised.
        settle_s: all gates must have been open for so long before training goes on, seconds.
    """

    temperature_c: float = 80.0
    while_throttled: bool = False
    power: Literal["any", "mains", "battery"] = "any"
    battery_share: float = 0.5
    load_per_core: float = 4.0
    hours: list[str] = msgspec.field(default_factory=list)
    idle_streams: list[str] = msgspec.field(default_factory=list)
    while_alarm: bool = True
    settle_s: float = 60.0


class TrainingConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Limits of the training child.

    Attributes:
        enabled: false makes a device that only infers; it declines every plan with that sentence.
        nice: added to the child's priority, 0 to 19.
        memory_mib: largest address space of the child; a plan that needs more resident memory is declined, MiB.
        timeout_s: training of one plan ends after so many seconds, pauses not counted.
        examples_mib: windows in memory; the others are put aside, sealed, on the disk, MiB.
        save_s: seconds between two states on the disk, from which a training goes on after a power cut.
        gates: when it may train.
    """

    enabled: bool = True
    nice: int = 19
    memory_mib: int = 1024
    timeout_s: float = 3_600.0
    examples_mib: int = 64
    save_s: float = 30.0
    gates: GatesConfig = msgspec.field(default_factory=GatesConfig)


def training_rules(training: TrainingConfig) -> Iterator[tuple[bool, str]]:
    """What must hold of a configuration, each with the sentence for one of which it does not."""
    gates = training.gates
    yield 0 <= training.nice <= 19, "training.nice must be 0 to 19"
    yield 64 <= training.memory_mib <= MAX_MIB, f"training.memory_mib must be 64 to {MAX_MIB}"
    yield 1 <= training.examples_mib <= MAX_MIB, f"training.examples_mib must be 1 to {MAX_MIB}"
    yield _within("training.timeout_s", training.timeout_s, MAX_WAIT_S)
    yield _within("training.save_s", training.save_s, MAX_WAIT_S)
    yield _within("training.gates.temperature_c", gates.temperature_c, 200)
    yield _within("training.gates.load_per_core", gates.load_per_core, 1_000_000)
    yield 0 <= gates.battery_share < 1, "training.gates.battery_share must be 0 to below 1"
    yield 0 <= gates.settle_s <= MAX_WAIT_S, f"training.gates.settle_s must be 0 to {MAX_WAIT_S}"
    for text in gates.hours:
        yield _are_hours(text), f'training.gates.hours are times such as "22:00-06:00", not {text[:32]!r}'


def _within(name: str, value: float, most: int) -> tuple[bool, str]:
    return math.isfinite(value) and 0 < value <= most, f"{name} must be above zero, and at most {most}"


def _are_hours(text: str) -> bool:
    from bedside.core.policy.hours import parse_hours  # the package of all rules

    try:
        parse_hours(text)
    except ValueError:
        return False
    return bool(text)
