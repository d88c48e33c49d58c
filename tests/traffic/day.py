"""Runs the day, and settles the account: what was given is what is stored, counted as dropped, or in quarantine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.sources.supervisor import SourceHealth
from resident_device import (
    Resident,
    buffer_of,
    dropped_of,
    make_directory,
    quarantine_of,
    resident,
    samples_of,
    values_of,
)
from traffic.clock import TurnedClock
from traffic.feeder import Feeder, toml

BEGIN_NS = 1_790_000_000_000_000_000
MINUTE_S = 60.0
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Settled:
    """The account of one source, in readings and samples.

    Attributes:
        given: by its peer.
        stored: that the buffer gives back.
        dropped: of which a counter tells.
        lost: that were damaged on the way, so that they have to be dropped.
        quarantined: by reason.
        expected: what the quarantine should hold, by reason.
        errors: times that the source failed.
    """

    name: str
    given: int
    stored: int
    dropped: int
    lost: int
    quarantined: dict[str, int]
    expected: dict[str, int]
    errors: int

    @property
    def exact(self) -> bool:
        return self.given == self.stored + self.dropped + sum(self.quarantined.values())


async def run_day(folder: Path, kinds: Sequence[type[Feeder]], minutes: int) -> list[Settled]:
    """Give a real agent so many minutes of everything."""
    device = folder / "device"
    feeders = [kind(folder) for kind in kinds]
    clock = TurnedClock(BEGIN_NS)
    try:
        for feeder in feeders:
            await feeder.prepare()
        make_directory(device, "".join(map(toml, feeders)))
        async with resident(device, clock) as agent:
            for feeder in feeders:
                await _start(feeder, agent.health[feeder.name])
            for number in range(minutes):
                await _minute(agent, clock, feeders, number)
            told = {name: (health.gauge.dropped, health.errors) for name, health in agent.health.items()}
    finally:
        for feeder in feeders:
            await feeder.stop()
    with buffer_of(device) as reader:
        return [_settle(reader, feeder, *told[feeder.name]) for feeder in feeders]


async def _start(feeder: Feeder, health: SourceHealth) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await feeder.start(health)
    except TimeoutError as error:
        raise AssertionError(f"{feeder.name} does not begin: {health}") from error


async def _minute(agent: Resident, clock: TurnedClock, feeders: Sequence[Feeder], number: int) -> None:
    await agent.until(lambda: not agent.commits)  # one that is under way would seem to have taken a minute
    clock.turn_to(number * MINUTE_S)
    start_ns = BEGIN_NS + round(number * MINUTE_S * 1e9)
    given = [asyncio.ensure_future(feeder.minute(number, start_ns)) for feeder in feeders]
    try:
        await agent.until(lambda: all(one.done() for one in given))
    finally:
        for one in given:
            one.cancel()
    for one in given:
        one.result()
    try:
        await agent.until(lambda: not _behind(agent, feeders))
    except AssertionError as error:
        raise AssertionError(f"minute {number}: {_behind(agent, feeders)}") from error


def _behind(agent: Resident, feeders: Sequence[Feeder]) -> list[str]:
    """Sources that have not told of all that they were given."""
    found = []
    for one in feeders:
        health = agent.health[one.name]
        if one.taken(health) < one.sent.readings:
            found.append(f"{one.name} took {one.taken(health)} of {one.sent.readings} ({health.last_error})")
    return found


def _settle(reader: BufferReader, feeder: Feeder, gauged: int, errors: int) -> Settled:
    stored = sum(values_of(reader, stream) + samples_of(reader, stream) for stream in feeder.streams())
    counted = sum(dropped_of(reader, stream) for stream in feeder.streams())
    return Settled(
        name=feeder.name,
        given=feeder.sent.readings,
        stored=stored,
        dropped=gauged + counted,
        lost=feeder.sent.lost,
        quarantined=dict(quarantine_of(reader).get(feeder.name, {})),
        expected={reason: count for reason, count in feeder.sent.bad.items() if count},
        errors=errors,
    )


def account(settled: Sequence[Settled]) -> str:
    """A table for people."""
    lines = [f"{'source':<10}{'given':>10}{'stored':>10}{'dropped':>10}{'quarantine':>12}  reasons"]
    for one in settled:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(one.quarantined.items()))
        held = sum(one.quarantined.values())
        lines.append(f"{one.name:<10}{one.given:>10}{one.stored:>10}{one.dropped:>10}{held:>12}  {reasons}")
    return "\n".join(lines)
