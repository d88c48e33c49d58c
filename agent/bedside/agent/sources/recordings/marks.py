"""Labels and sessions known from a recording, laid over a stream as its blocks arrive.

Invariants: a block never crosses a session's border; a session's open mark comes before its first block, its close mark
after its last; a label comes before the block in which it begins. What ended before the first block is left out, and
a session that was under way then opens with that block.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Final

from bedside.core.errors import ConfigError, MalformedError
from bedside.core.limits import MAX_WIRE_INTEGER
from bedside.core.samples import Block, Mark, MarkKind
from bedside.firmware_bridge.recording import MAX_LABELS, Recording, read_recording
from bedside.ondevice.windows.part import end_ns, offset_ns

_CLOSE, _OPEN, _LABEL = range(3)
_KINDS: Final = {_CLOSE: MarkKind.SESSION_CLOSE, _OPEN: MarkKind.SESSION_OPEN, _LABEL: MarkKind.LABEL}


@dataclass(frozen=True, slots=True)
class Track:
    """Labels and sessions in nanoseconds from the stream's zero.

    Attributes:
        labels: (start, end, name).
        sessions: (start, end), in order.
        length_ns: of one lap of a looping stream; 0 when it does not loop.
    """

    labels: tuple[tuple[int, int, str], ...]
    sessions: tuple[tuple[int, int], ...]
    length_ns: int = 0

    def timeline(self) -> Iterator[tuple[int, int, int, str]]:
        """Yield (time, order, end, name) in order, for ever when it loops; a session's border has no name."""
        events = [(end, _CLOSE, end, "") for _, end in self.sessions]
        events += [(start, _OPEN, end, "") for start, end in self.sessions]
        events += [(start, _LABEL, end, name) for start, end, name in self.labels]
        events.sort()
        laps: Iterator[int] = count() if self.length_ns else iter((0,))
        for lap in laps if events else ():
            shift = lap * self.length_ns
            for time, order, end, name in events:
                yield time + shift, order, end + shift, name


def track_of(recording: Recording, *, loop: bool) -> Track:
    """The labels and sessions of `recording`."""

    def at(index: int) -> int:
        return offset_ns(index, recording.rate_hz)

    return Track(
        tuple((at(label.start), at(label.end), label.name) for label in recording.labels),
        tuple((at(start), at(end)) for start, end in recording.sessions),
        at(len(recording.values)) if loop else 0,
    )


def read_track(path: Path, *, loop: bool) -> Track:
    """Read labels from a recording (.npz) or a CSV file with the columns start_s, end_s, label.

    Raises:
        ConfigError: `recording-missing`, `labels-missing`.
        MalformedError: `bad-recording`, `bad-labels`.
    """
    if path.suffix == ".npz":
        return track_of(read_recording(path), loop=loop)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(islice(csv.DictReader(file), MAX_LABELS + 1))
        if len(rows) > MAX_LABELS:
            raise ValueError(f"more than {MAX_LABELS} labels")
        labels = tuple(_label(row) for row in rows)
    except OSError as error:
        raise ConfigError("labels-missing", f"{path} cannot be read: {error.strerror}", remedy="check it") from error
    except (ValueError, KeyError, TypeError, OverflowError, csv.Error) as error:
        raise MalformedError("bad-labels", f"{path.name} lacks start_s, end_s or label: {error}") from error
    return Track(labels, ())


def _label(row: dict[str, str]) -> tuple[int, int, str]:
    start_ns, end_ns, name = round(float(row["start_s"]) * 1e9), round(float(row["end_s"]) * 1e9), row["label"]
    if not 0 <= start_ns <= end_ns <= MAX_WIRE_INTEGER or not name:
        raise ValueError(f"a label from {start_ns} to {end_ns} ns, or one without a name, is impossible")
    return start_ns, end_ns, name


class Annotator:
    """Lays a track over one stream whose zero is at `zero_ns`."""

    def __init__(self, track: Track, zero_ns: int, origin: str) -> None:
        self._zero_ns = zero_ns
        self._origin = origin
        self._timeline = track.timeline()
        self._next = next(self._timeline, None)
        self._begun = False

    def annotate(self, block: Block) -> Iterator[Block | Mark]:
        """Yield `block`, cut where a session begins or ends, with the marks at their places."""
        if not self._begun:
            self._begun = True
            yield from self._catch_up(block)
        rest: Block | None = block
        while self._next is not None and rest is not None:
            time_ns = self._next[0] + self._zero_ns
            session_border = self._next[1] != _LABEL
            if time_ns > end_ns(rest) or (time_ns == end_ns(rest) and self._next[1] != _CLOSE):
                break
            if session_border and time_ns > rest.start_ns:
                head, rest = _split(rest, time_ns)
                if head is not None:
                    yield head
            yield self._take(block, time_ns)
        if rest is not None:
            yield rest

    def _catch_up(self, block: Block) -> Iterator[Mark]:
        under_way: list[Mark] = []
        while self._next is not None and self._next[0] + self._zero_ns < block.start_ns:
            time, order, end, _ = self._next
            mark = self._take(block, max(time + self._zero_ns, block.start_ns))
            if order == _CLOSE:
                under_way.clear()
            elif end + self._zero_ns > block.start_ns:
                under_way.append(mark)
        yield from under_way

    def _take(self, block: Block, time_ns: int) -> Mark:
        assert self._next is not None  # noqa: S101 - both callers looked
        _, order, end, name = self._next
        self._next = next(self._timeline, None)
        end_of_mark = end + self._zero_ns if order == _LABEL else time_ns
        return Mark(block.stream, time_ns, end_of_mark, name, self._origin, _KINDS[order])


def _split(block: Block, time_ns: int) -> tuple[Block | None, Block | None]:
    """The samples of `block` before `time_ns`, and those from it on."""
    index = next((i for i in range(len(block.values)) if _at(block, i) >= time_ns), len(block.values))
    head = replace(block, values=block.values[:index]) if index else None
    tail = None
    if index < len(block.values):
        tail = replace(block, start_ns=_at(block, index), values=block.values[index:])
    return head, tail


def _at(block: Block, index: int) -> int:
    return block.start_ns + offset_ns(index, block.rate_hz)
