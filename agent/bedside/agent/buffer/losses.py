"""Streams of which something was let go because the disk refused it: nobody may acknowledge that to a sender.

What can never be kept (a time beyond the columns, a record of no form, an expired or repeated one) is no loss: it is
counted, durably, and sending it again would change nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bedside.core.clock import Clock
from bedside.core.ids import StreamId

_RECENT_S: Final = 2.0
"""Seconds in which every wait on a stream hears of a loss: of several that one source waits for, each is told."""


class _Loss(NamedTuple):
    number: int
    at_s: float


class Losses:
    """The last loss of each stream since the process started."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count = 0
        self._last: dict[StreamId, _Loss] = {}

    def note(self, stream: StreamId) -> None:
        """Something of the stream was let go."""
        self._count += 1
        self._last[stream] = _Loss(self._count, self._clock.monotonic_s())

    @property
    def number(self) -> int:
        """Of the last loss of any stream; 0 before the first."""
        return self._count

    def has_lost(self, stream: StreamId, since: int) -> bool:
        """Whether something of the stream was let go after the loss of number `since`, or just now."""
        last = self._last.get(stream)
        return last is not None and (last.number > since or self._clock.monotonic_s() - last.at_s < _RECENT_S)
