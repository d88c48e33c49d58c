"""When a device should call again, and what its silence means."""

from __future__ import annotations

from enum import Enum
from typing import Final

LATE_AFTER_BEATS: Final = 2.5
"""Heartbeats that may be missed before a device is late: one lost call is no news."""
SILENT_AFTER_BEATS: Final = 10.0
"""And before it is silent."""
ASK_AGAIN_MS: Final = 250
"""Pause between two questions for an offer of a device that lets us hold the question: it waits inside the call."""
_MS_PER_S: Final = 1_000


class DeviceState(Enum):
    """How a device is, seen from here."""

    ONLINE = "online"
    LATE = "late"
    SILENT = "silent"
    NEVER = "never"
    REVOKED = "revoked"


def device_state(last_seen_s: float, now_s: float, heartbeat_s: float, *, listed: bool) -> DeviceState:
    """Judge a device by its last call; `last_seen_s` is 0 when it never called."""
    if not listed:
        return DeviceState.REVOKED
    if not last_seen_s:
        return DeviceState.NEVER
    beats = (now_s - last_seen_s) / heartbeat_s
    if beats <= LATE_AFTER_BEATS:
        return DeviceState.ONLINE
    return DeviceState.LATE if beats <= SILENT_AFTER_BEATS else DeviceState.SILENT


def next_call_ms(heartbeat_s: float, credential_digest: bytes) -> int:
    """Milliseconds until a device's next heartbeat: the interval, up to a tenth earlier by its digest.

    The spread keeps a fleet that was switched on together from calling together for ever.
    """
    share = int.from_bytes(credential_digest[:2], "big") / 65_536
    return max(1, int(heartbeat_s * _MS_PER_S * (1 - share / 10)))
