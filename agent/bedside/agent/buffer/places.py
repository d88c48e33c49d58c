"""Where raw rows are: per stream, the spans of 256 seconds that may hold some.

Held in memory, a few bytes per span, so that the oldest rows of any choice of streams are found without a scan and
without an index that every commit would have to write.

Invariant: every raw row lies in a known span, at or after its stream's first second. The reverse need not hold: a span
that turns out to be empty is dropped when it is looked at.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bedside.agent.buffer.schema import LAST_NS, MAX_STREAMS, PART_BITS, RAW_TABLES, STREAM_BITS, ids_of
from bedside.agent.buffer.walk import next_second
from bedside.ondevice.windows.part import NS_PER_S

_SPAN_BITS: Final = 8
_SLACK_S: Final = 3_600
"""A session's first samples may be older than its opening, by its gap."""


@dataclass(slots=True)
class _Stream:
    heap: list[int] = field(default_factory=list)
    spans: set[int] = field(default_factory=set)
    first_second: int = 0

    def add(self, span: int) -> None:
        if span not in self.spans:
            self.spans.add(span)
            heapq.heappush(self.heap, span)

    def pop(self) -> int:
        span = heapq.heappop(self.heap)
        self.spans.discard(span)
        return span


class RawPlaces:
    """The spans of one buffer's file, kept by its writer.

    Attributes:
        newest_second: of any row of this process; before the first, of the span with the newest row.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Look at the key of every raw row once."""
        self._connection = connection
        self._streams: dict[int, _Stream] = {}
        self._unsettled: list[tuple[int, int]] = []
        self.newest_second = 0
        shift = STREAM_BITS + PART_BITS + _SPAN_BITS
        for table in RAW_TABLES:
            for span, number in connection.execute(
                f"SELECT DISTINCT id >> {shift}, (id >> {PART_BITS}) & {MAX_STREAMS - 1} FROM {table}"
            ):
                self._streams.setdefault(number, _Stream()).add(span)
                self.newest_second = max(self.newest_second, span << _SPAN_BITS)

    def note(self, number: int, second: int) -> None:
        """Rows of a stream's second are about to be inserted."""
        stream = self._streams.setdefault(number, _Stream(first_second=second))
        stream.add(second >> _SPAN_BITS)
        stream.first_second = min(stream.first_second, second)
        self.newest_second = max(self.newest_second, second)

    def first_second(self, number: int) -> int | None:
        """A second before which the stream has no rows; None when it has none at all."""
        stream = self._streams.get(number)
        return max(stream.first_second, stream.heap[0] << _SPAN_BITS) if stream is not None and stream.heap else None

    def numbers(self) -> list[int]:
        """Numbers of the streams that may have rows."""
        return [number for number, stream in self._streams.items() if stream.heap]

    def oldest_second(self, number: int) -> int | None:
        """The stream's oldest second with rows; None when there are none."""
        stream = self._streams[number]
        while stream.heap:
            span = stream.heap[0]
            second: int | None = max(stream.first_second, span << _SPAN_BITS)
            while second is not None and second >> _SPAN_BITS == span:
                if any(self._has_rows(table, number, second) for table in RAW_TABLES):
                    stream.first_second = second
                    return second
                following = [next_second(self._run, table, number, second) for table in RAW_TABLES]
                second = min((at for at in following if at is not None), default=None)
            self._unsettled.append((number, stream.pop()))
        return None

    def ranges(self, number: int, opened_ns: int, closed_ns: int | None) -> Iterator[tuple[int, int]]:
        """First and last id of every second in which a session of the stream may have rows."""
        first = opened_ns // NS_PER_S - _SLACK_S
        last = LAST_NS if closed_ns is None else closed_ns // NS_PER_S + _SLACK_S
        for span in sorted(self._streams[number].spans) if number in self._streams else ():
            for second in range(max(first, span << _SPAN_BITS), min(last + 1, (span + 1) << _SPAN_BITS)):
                yield ids_of(second, number)

    def drop_before(self, number: int, second: int) -> None:
        """The stream has no rows before `second` any more."""
        stream = self._streams.get(number)
        while stream is not None and stream.heap and stream.heap[0] < second >> _SPAN_BITS:
            stream.pop()

    def settle(self, *, committed: bool) -> None:
        """The transaction has ended; after a roll-back its rows are there again."""
        if not committed:
            for stream in self._streams.values():
                stream.first_second = 0
            for number, span in self._unsettled:
                self._streams[number].add(span)
        self._unsettled.clear()

    def latest_end_ns(self, number: int, session: str, opened_ns: int) -> int:
        """End of the session's newest raw row; 0 when it has none."""
        stream = self._streams.get(number)
        oldest = opened_ns // NS_PER_S - _SLACK_S
        for span in sorted(stream.spans, reverse=True) if stream is not None else ():
            if (span + 1) << _SPAN_BITS <= oldest:
                break
            for second in range(((span + 1) << _SPAN_BITS) - 1, (span << _SPAN_BITS) - 1, -1):
                if latest_ns := self._end_ns(number, session, second):
                    return latest_ns
        return 0

    def _end_ns(self, number: int, session: str, second: int) -> int:
        low, high = ids_of(second, number)
        ends = [
            self._connection.execute(
                f"SELECT max({column}) FROM {table} WHERE id BETWEEN ? AND ? AND session = ?", (low, high, session)
            ).fetchone()[0]
            for table, column in (("blobs", "end_ns"), ("records", "time_ns"))
        ]
        return max(end_ns or 0 for end_ns in ends)

    def has_records(self, number: int, second: int) -> bool:
        """Whether the stream has records in that second."""
        return self._has_rows("records", number, second)

    def _has_rows(self, table: str, number: int, second: int) -> bool:
        return bool(self._run(f"SELECT 1 FROM {table} WHERE id BETWEEN ? AND ? LIMIT 1", ids_of(second, number)))

    def _run(self, sql: str, parameters: object) -> list[sqlite3.Row]:
        return self._connection.execute(sql, parameters).fetchall()  # type: ignore[arg-type]  # a sequence of values
