"""Time and randomness as parameters."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Wall time and monotonic time. Neither goes backwards within a process, unless wall time was ahead by an hour."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch, UTC."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary point; for deadlines and latencies."""


class Entropy(Protocol):
    """A source of cryptographic randomness."""

    def token_bytes(self, count: int) -> bytes:
        """Return `count` unpredictable bytes."""
