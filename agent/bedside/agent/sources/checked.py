"""What a source yields, looked at before anybody trusts it: a source of another package may yield anything at all.

What is no event by its types is its source's failure (`source-event`). Whether the numbers in a sound event make sense
is for the buffer to say, which refuses and counts the ones that do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Final

import numpy as np

from bedside.agent.buffer.schema import LAST_NS
from bedside.core.errors import MalformedError
from bedside.core.ids import StreamId, check_id
from bedside.core.limits import MAX_SIGNAL_TEXT_CHARS
from bedside.core.samples import Block, Event, Mark, MarkKind, Quality, Record, Unmapped
from bedside.core.vocabulary.reading import MAX_WHAT_CHARS

MAX_STREAMS: Final = 1_000
"""Streams of one source: each costs memory and a row for as long as the device lives."""

_TOO_LARGE: Final = 1 << 53


class EventCheck:
    """Knows one source's streams, so that an id is looked at once."""

    def __init__(self) -> None:
        self._streams: set[StreamId] = set()

    def checked(self, event: object) -> Event:
        """Return `event`, which is one.

        Raises:
            MalformedError: `source-event`, without a value of it.
        """
        if isinstance(event, Block):
            fault = _block_fault(event)
        elif isinstance(event, Record):
            fault = _record_fault(event)
        elif isinstance(event, Mark):
            fault = _mark_fault(event)
        elif isinstance(event, Unmapped):
            fault = _unmapped_fault(event)
        else:
            raise _not_sound("no event", f"it is of type {type(event).__name__}")
        kind = f"a {type(event).__name__}"
        if fault:
            raise _not_sound(kind, fault)
        if not isinstance(event, Unmapped):
            self._check_stream(kind, event.stream)
        return event

    def _check_stream(self, kind: str, stream: StreamId) -> None:
        if not _is(stream, str):
            raise _not_sound(kind, "its stream is no text")
        if stream in self._streams:
            return
        check_id(stream, "stream")
        if len(self._streams) >= MAX_STREAMS:
            raise _not_sound(kind, f"it is of another stream than the {MAX_STREAMS} before")
        self._streams.add(stream)


def _not_sound(kind: str, fault: str) -> MalformedError:
    return MalformedError("source-event", f"the source yields {kind} that nobody can take: {fault}")


def _block_fault(block: Block) -> str:
    # The integers of numpy are refused with the other objects: SQLite would store their bytes.
    rules = (
        (_is(block.values, np.ndarray) and block.values.ndim > 0, "its values are no array"),
        (_is(block.start_ns, int), "its time is no integer"),
        (_is(block.rate_hz, float, int), "its rate is no number"),
        (_is(block.scale, float, int), "its scale is no number"),
        (_is(block.unit, str) and _is(block.metric, str), "its unit or metric is no text"),
        (_is(block.quality, Quality), "its quality is no Quality"),
    )
    return _first(rules)


def _record_fault(record: Record) -> str:
    values, units = record.values, record.units
    if not (_is(values, Mapping) and _is(units, Mapping)):
        return "its values or units are no mapping"
    rules = (
        (_is(record.time_ns, int), "its time is no integer"),
        (all(_is(name, str) for name in (*values, *units, *units.values())), "a name or a unit in it is no text"),
        (all(_is_number(value) for value in values.values()), "a value in it is no number"),
        (_is(record.quality, Quality), "its quality is no Quality"),
    )
    return _first(rules)


def _mark_fault(mark: Mark) -> str:
    rules = (
        (_is(mark.start_ns, int) and _is(mark.end_ns, int), "its times are no integers"),
        (_is(mark.label, str), "its label is no text"),
        (_is_short(mark.origin, MAX_SIGNAL_TEXT_CHARS), "its origin is no short text"),
        (_is(mark.kind, MarkKind), "its kind is no MarkKind"),
    )
    return _first(rules)


def _unmapped_fault(unmapped: Unmapped) -> str:
    rules = (
        (_is_short(unmapped.reason, MAX_SIGNAL_TEXT_CHARS), "its reason is no short text"),
        (_is_short(unmapped.what, MAX_WHAT_CHARS), "what it names is no short text"),
        (_is(unmapped.time_ns, int) and 0 <= unmapped.time_ns < LAST_NS, "its time is impossible"),
        (_is(unmapped.count, int) and 0 < unmapped.count < _TOO_LARGE, "its count is impossible"),
    )
    return _first(rules)


def _is(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds)


def _is_short(text: object, characters: int) -> bool:
    return isinstance(text, str) and len(text) <= characters and text.isprintable()


def _is_number(value: object) -> bool:
    if not isinstance(value, Real):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _first(rules: tuple[tuple[object, str], ...]) -> str:
    return next((fault for holds, fault in rules if not holds), "")
