"""What the buffer takes from a source: what is impossible is refused alone, before it waits beside what others said.

Times end a day before the columns do, so that their sums with a minute, a window or a session's gap fit as well.
"""

from __future__ import annotations

from typing import Final

from bedside.agent.buffer.schema import LAST_NS
from bedside.core.errors import MalformedError, StoreError
from bedside.core.samples import Block, Record, form_fault
from bedside.ondevice.windows.part import NS_PER_S, end_ns

END_NS: Final = LAST_NS - 86_400 * NS_PER_S
"""Nanoseconds since 1970, in April 2262, that nothing in the buffer reaches."""


def times_of(arrived: Block | Record) -> tuple[int, int]:
    """When a block or a record begins and ends, in nanoseconds since 1970.

    Raises:
        MalformedError: `block-form`.
        StoreError: `empty-block`, `buffer-range`.
    """
    if isinstance(arrived, Record):
        check_times(arrived.time_ns, arrived.time_ns)
        return arrived.time_ns, arrived.time_ns
    if not len(arrived.values):
        raise StoreError("empty-block", f"stream {arrived.stream} delivered a block without samples")
    fault = form_fault(arrived.values, arrived.rate_hz, arrived.unit, arrived.metric, arrived.scale)
    if fault:
        raise MalformedError("block-form", f"stream {arrived.stream} delivers no signal: {fault}")
    end = end_ns(arrived)
    check_times(arrived.start_ns, end)
    return arrived.start_ns, end


def check_times(start_ns: int, end_ns: int) -> None:
    """Refuse what the columns cannot hold.

    Raises:
        StoreError: `buffer-range` before 1970, after April 2262, or with the end before the start.
    """
    if not 0 <= start_ns <= end_ns < END_NS:
        raise StoreError("buffer-range", "a time before 1970 or after April 2262 cannot be stored")
