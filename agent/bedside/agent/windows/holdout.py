"""Which labelled windows are held out: a model is judged on them on this device, and none is ever trained on.

A window's role depends on nothing but the device's secret, its session's name and its time: it is the same at every
training and at every judgement, whatever else is stored, erased or labelled later. One session in ten is held out
whole. Such windows are the better judges, as patients of their own, but a device with few sessions has none; therefore
one block of time in ten of every other session is held out as well. What touches the border of such a block is neither
trained on nor judged with: overlapping windows share samples.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Literal

from bedside.agent.buffer.session_ids import ONE_IN, is_held_out

if TYPE_CHECKING:
    from bedside.core.bundle.manifest import WindowSpec

KEY_BYTES: Final = 32
LEAST_BLOCK_S: Final = 30.0
"""Seconds of a block of time, at least."""
_WINDOWS_PER_BLOCK: Final = 12
"""A block is as long as so many windows end to end, so that few of them touch its border."""
_NS_PER_S: Final = 1_000_000_000

Role = Literal["training", "session", "block", "border"]
"""`session` and `block` are held out, with the whole session or with a block of its time."""


class HoldOut:
    """Knows the role of every window that one model takes on one device.

    Args:
        device_secret: 32 bytes that never leave the device.
        spec: of its windows.

    Attributes:
        block_ns: length of a block of time, ns.
    """

    def __init__(self, device_secret: bytes, spec: WindowSpec) -> None:
        window_s = 0.0 if spec.fields else spec.length / spec.rate_hz
        self.block_ns = round(max(LEAST_BLOCK_S, _WINDOWS_PER_BLOCK * window_s) * _NS_PER_S)
        self._key = hashlib.blake2b(key=device_secret, person=b"bedside-hold-v1", digest_size=KEY_BYTES).digest()

    def role(self, session: str, start_ns: int, end_ns: int) -> Role:
        """The role of a window of a session; `end_ns` is exclusive."""
        if is_held_out(session):
            return "session"
        first, last = start_ns // self.block_ns, max(start_ns, end_ns - 1) // self.block_ns
        held = [self._draws(session, block) for block in range(first, last + 1)]
        if not any(held):
            return "training"
        return "block" if len(held) == 1 else "border"

    def _draws(self, session: str, block: int) -> bool:
        drawn = hashlib.blake2b(f"{session}/{block}".encode(), key=self._key, digest_size=8).digest()
        return int.from_bytes(drawn, "big") % ONE_IN == 0


class Split:
    """Some of a device's windows.

    Args:
        hold_out: of the device.
        role: that they have.
    """

    def __init__(self, hold_out: HoldOut, role: Role) -> None:
        self._hold_out = hold_out
        self._role = role

    def may_have(self, session: str) -> bool:
        """Whether any window of a session is among them; what is not need not be cut."""
        return is_held_out(session) == (self._role == "session")

    def has(self, session: str, start_ns: int, end_ns: int) -> bool:
        """Whether a window is among them."""
        return self._hold_out.role(session, start_ns, end_ns) == self._role
