"""Who is there: every call shows it, and a coordinator's own absence is nobody's silence."""

from __future__ import annotations

from dataclasses import dataclass

from bedside.coordinator.fleet.pacing import LATE_AFTER_BEATS, DeviceState
from bedside.coordinator.fleet.roll import Roll
from bedside.proto.v1.common_pb2 import Empty

HEARTBEAT_S = 10.0
LATE_S = int(HEARTBEAT_S * LATE_AFTER_BEATS) + 1


@dataclass
class SetClock:
    """A clock that stands until it is set."""

    at_s: int

    def now_ns(self) -> int:
        return self.at_s * 1_000_000_000

    def monotonic_s(self) -> float:
        return float(self.at_s)


async def test_a_device_that_only_asks_for_offers_is_online(federation):
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        device = desk.device(federation.sites["alder"].members[1])
        await device.offer(wait_ms=0)
        listed = {entry.id: entry for entry in (await desk.operator.ListDevices(Empty())).devices}
        entry = listed[device.member.own.credential.subject]
        assert entry.state == "online"
        assert entry.last_seen_s


async def test_the_time_without_a_coordinator_is_nobodys_silence(federation):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        early, late = (desk.device(member) for member in federation.sites["alder"].members[1:3])
        parts = desk.alive.parts
        clock = SetClock(1_000_000)
        before = Roll(parts.store, parts.registry, clock, HEARTBEAT_S)
        before.take(late.heartbeat(), late.member.own)
        clock.at_s += LATE_S
        before.take(early.heartbeat(), early.member.own)
        assert not before.is_online(late.member.own)
        before.flush()

        clock.at_s += 3_600  # nobody ran
        after = Roll(parts.store, parts.registry, clock, HEARTBEAT_S)
        assert after.is_online(early.member.own)
        assert not after.is_online(late.member.own), "who was late before stays late"
        clock.at_s += LATE_S
        assert after.state(early.member.own) is DeviceState.LATE, "whoever does not come back is late in its turn"
