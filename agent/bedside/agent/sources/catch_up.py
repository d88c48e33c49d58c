"""What was left out of rows that a restart reads again: it was counted already where a stored row lies behind it.

The quarantine counts, and cannot know a thing again, as the store knows a record. But what arrives is committed in its
order: a stored row means that everything before it was committed too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bedside.core.ids import StreamId
from bedside.core.samples import Event, Record, Unmapped


class CatchUp:
    """Holds what was left out until the next row tells whether it is known."""

    def __init__(self, last_end_ns: Callable[[StreamId], int], streams: Sequence[StreamId], *, active: bool) -> None:
        """Prepare.

        Args:
            last_end_ns: end of what is stored of a stream.
            streams: of the source.
            active: a position was kept: what comes first may be known.
        """
        self._known_ns = {stream: last_end_ns(stream) for stream in streams} if active else {}
        self._held: list[Unmapped] = []

    @property
    def active(self) -> bool:
        """Whether what comes may still be known."""
        return bool(self._known_ns)

    def taken(self, events: Sequence[Event], *, known: bool = False) -> list[Event]:
        """Take what a row became; return what is to be delivered now.

        The first row that became something and is not known ends the catching up.

        Args:
            events: of one row.
            known: whether its samples are stored; of a record that is seen here.
        """
        if not self.active:
            return list(events)
        left_out = [event for event in events if isinstance(event, Unmapped)]
        if events and len(left_out) == len(events):
            self._held += left_out
            return []
        if known or any(isinstance(event, Record) and self._is_known(event) for event in events):
            self._held.clear()
            return [event for event in events if not isinstance(event, Unmapped)]
        self._known_ns = {}
        return [*self.release(), *events]

    def release(self) -> list[Unmapped]:
        """Nothing more comes for now: what is held is to be counted."""
        held, self._held = self._held, []
        return held

    def _is_known(self, record: Record) -> bool:
        """Whether a record lies where the store has some."""
        return record.time_ns <= self._known_ns.get(record.stream, -1)
