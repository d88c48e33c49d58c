"""The newest heartbeat of every device: in memory at once, in the store by groups.

Invariants:
    * A heartbeat counts when its device signed it and its sequence is above the last one: a replay changes nothing.
    * A heartbeat that was not flushed is lost with the process; the device sends the next one anyway.
    * Every call shows that a device is there, not its heartbeats alone.
    * The time in which no coordinator ran is nobody's silence: a round waits for those who were online before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bedside.coordinator.enrolment.registry import Registry
from bedside.coordinator.fleet.pacing import DeviceState, device_state
from bedside.coordinator.store import Store, members
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError, MalformedError, ProtocolError, TrustError
from bedside.core.signing import VerifiedCredential, open_signed, parse_strict
from bedside.core.signing.envelope import SUITE
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import ComponentState, Heartbeat
from bedside.proto.v1.operator_pb2 import DeviceEntry, FleetSummary, SiteSummary

MAX_HEARTBEAT_BYTES: Final = 64 << 10
_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Seen:
    sequence: int
    last_seen_s: int
    heartbeat: Heartbeat
    forgiven_s: int = 0


class Roll:
    """Who called when, and what they said.

    Attributes:
        heartbeat_s: seconds between two heartbeats of a device.
    """

    def __init__(self, store: Store, registry: Registry, clock: Clock, heartbeat_s: float) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self.heartbeat_s = heartbeat_s
        self._unflushed: dict[bytes, members.DeviceRow] = {}
        self._trustees_seen_s: dict[str, int] = {}
        self._called_s: dict[bytes, int] = {}
        rows = store.run_tx("load-heartbeats", members.devices)
        down_s = max(0, self._now_s() - max((row.last_seen_s for row in rows), default=0))
        self._seen = {
            row.credential_digest: _Seen(row.sequence, row.last_seen_s, Heartbeat.FromString(row.heartbeat), down_s)
            for row in rows
        }

    def take(self, signed: Signed, sender: VerifiedCredential) -> None:
        """Take a device's heartbeat.

        Raises:
            TrustError: `bad-signature`, or `wrong-sender`.
            MalformedError: `bad-heartbeat`, or when it is not well-formed.
            ProtocolError: `old-heartbeat`, when its sequence does not grow.
        """
        payload = open_signed("heartbeat", signed, sender.sign_pk)
        heartbeat = parse_strict(Heartbeat, payload, MAX_HEARTBEAT_BYTES)
        if heartbeat.suite != SUITE or heartbeat.sequence >= 1 << 63:
            raise MalformedError("bad-heartbeat", "a heartbeat's suite or sequence is not valid")
        if heartbeat.credential_digest != sender.digest:
            raise TrustError("wrong-sender", "a heartbeat names another credential than its sender's")
        known = self._seen.get(sender.digest)
        if known is not None and heartbeat.sequence <= known.sequence:
            raise ProtocolError("old-heartbeat", "a heartbeat with this sequence was seen before")
        seen = _Seen(heartbeat.sequence, self._now_s(), heartbeat)
        self._seen[sender.digest] = seen
        self._unflushed[sender.digest] = members.DeviceRow(sender.digest, seen.sequence, seen.last_seen_s, payload)

    def device_called(self, device: VerifiedCredential) -> None:
        """Note that a device made a call."""
        self._called_s[device.digest] = self._now_s()

    def trustee_called(self, site: str) -> None:
        """Note that a site's trustee asked for work."""
        self._trustees_seen_s[site] = self._now_s()

    def flush(self) -> None:
        """Write the gathered heartbeats in one transaction; after a failure they wait for the next time."""
        gathered, self._unflushed = self._unflushed, {}
        if not gathered:
            return
        try:
            self._store.run_tx("flush-heartbeats", lambda tx: members.put_heartbeats(tx, gathered))
        except BedsideError:
            self._unflushed = gathered | self._unflushed
            raise

    def state(self, device: VerifiedCredential) -> DeviceState:
        """How a device is."""
        seen = self._seen.get(device.digest)
        listed = self._registry.trust.lists(device.site, device.digest)
        last_seen_s = seen.last_seen_s + seen.forgiven_s if seen is not None else 0
        called_s = self._called_s.get(device.digest, 0)
        return device_state(max(last_seen_s, called_s), self._now_s(), self.heartbeat_s, listed=listed)

    def is_online(self, device: VerifiedCredential) -> bool:
        """Whether a round should wait for this device."""
        return self.state(device) is DeviceState.ONLINE

    def entries(self) -> list[DeviceEntry]:
        """Every device that ever enrolled, by site and label."""
        entries = [self._entry(device) for device in self._registry.known_devices()]
        return sorted(entries, key=lambda entry: (entry.site, entry.label, entry.id))

    def summary(self, pending_requests: int) -> FleetSummary:
        """The fleet by site."""
        sites = [self._site(site) for site in sorted(self._registry.sites)]
        return FleetSummary(sites=sites, pending_requests=pending_requests, server_time_s=self._now_s())

    def _entry(self, device: VerifiedCredential) -> DeviceEntry:
        seen = self._seen.get(device.digest)
        told = device.credential
        entry = DeviceEntry(id=told.subject, site=told.site, label=told.label, state=self.state(device).value)
        entry.last_seen_s = max(self._called_s.get(device.digest, 0), seen.last_seen_s if seen is not None else 0)
        if seen is not None:
            entry.heartbeat.CopyFrom(seen.heartbeat)
        return entry

    def _site(self, site: str) -> SiteSummary:
        devices = self._registry.devices([site])
        online = [device for device in devices if self.is_online(device)]
        seen_s = self._trustees_seen_s.get(site, 0)
        trustee = device_state(seen_s, self._now_s(), self.heartbeat_s, listed=True)
        return SiteSummary(
            site=site,
            devices=len(devices),
            online=len(online),
            degraded=sum(self._is_degraded(device) for device in online),
            trustee_online=trustee is DeviceState.ONLINE,
            roster_version=self._registry.roster_version(site),
        )

    def _is_degraded(self, device: VerifiedCredential) -> bool:
        seen = self._seen.get(device.digest)
        parts = seen.heartbeat.components if seen is not None else ()
        return any(part.state != ComponentState.COMPONENT_STATE_OK for part in parts)

    def _now_s(self) -> int:
        return self._clock.now_ns() // _NS_PER_S
