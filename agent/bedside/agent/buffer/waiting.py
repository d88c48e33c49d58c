"""Sealed rows of signal and records that wait for the next group commit."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bedside.agent.buffer.part import NS_PER_S, Part, end_ns
from bedside.agent.buffer.schema import ids_of
from bedside.core.ids import SessionId, StreamId

MAX_WAITING_BYTES: Final = 8 << 20
"""Sealed bytes held while the disk refuses: about an hour of 8 channels at 250 Hz."""

_ROW_BYTES: Final = 128
"""Bytes that a row costs in the file beside what is sealed."""


@dataclass(frozen=True, slots=True)
class SealedRow:
    """One row to be inserted.

    Attributes:
        table: `blobs` or `records`.
        second: of its place.
        columns: all but id, session and sealed.
        arrived_s: monotonic time of its first sample.
    """

    table: str
    stream: StreamId
    session: SessionId
    second: int
    columns: dict[str, int | float | str]
    sealed: bytes
    arrived_s: float

    @property
    def size_bytes(self) -> int:
        """What the row takes in the file, at least."""
        return len(self.sealed) + _ROW_BYTES

    def insert(self, tx: sqlite3.Connection, stream_number: int) -> bool:
        """Insert behind what its second holds already; False when that is full."""
        first, last = ids_of(self.second, stream_number)
        newest = tx.execute(f"SELECT max(id) FROM {self.table} WHERE id BETWEEN ? AND ?", (first, last)).fetchone()[0]
        place = first if newest is None else newest + 1
        if place > last:
            return False
        row = {"id": place, "session": self.session, **self.columns, "sealed": self.sealed}
        marks = ", ".join("?" * len(row))
        tx.execute(f"INSERT INTO {self.table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
        return True


def part_row(part: Part, sealed: bytes, key_id: int, arrived_s: float) -> SealedRow:
    """A part as a row of `blobs`."""
    samples, channels = part.values.shape
    columns: dict[str, int | float | str] = {
        "start_ns": part.start_ns,
        "end_ns": end_ns(part.block()),
        "rate_hz": part.rate_hz,
        "samples": samples,
        "channels": channels,
        "dtype": part.values.dtype.name,
        "flags": int(part.quality),
        "key_id": key_id,
    }
    return SealedRow("blobs", part.stream, part.session, part.second, columns, sealed, arrived_s)


def record_row(
    stream: StreamId, session: SessionId, time_ns: int, sealed: bytes, key_id: int, arrived_s: float
) -> SealedRow:
    """A record as a row of `records`."""
    columns: dict[str, int | float | str] = {"time_ns": time_ns, "key_id": key_id}
    return SealedRow("records", stream, session, time_ns // NS_PER_S, columns, sealed, arrived_s)


class WaitingRows:
    """What waits, in the order in which it was sealed, up to a bound.

    Attributes:
        oldest_s: monotonic time of the first sample of all; None when nothing waits.
    """

    def __init__(self) -> None:
        self._rows: deque[SealedRow] = deque()
        self._bytes = 0
        self.oldest_s: float | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[SealedRow]:
        return iter(self._rows)

    def add(self, row: SealedRow) -> list[SealedRow]:
        """Let `row` wait; return the oldest ones, which had to go for it."""
        self._rows.append(row)
        self.oldest_s = row.arrived_s if self.oldest_s is None else min(self.oldest_s, row.arrived_s)
        self._bytes += len(row.sealed)
        dropped: list[SealedRow] = []
        while self._bytes > MAX_WAITING_BYTES:
            dropped.append(self._rows.popleft())
            self._bytes -= len(dropped[-1].sealed)
        return dropped

    def drop(self, session: SessionId) -> dict[str, int]:
        """Let go of a session's rows; return how many by table."""
        kept = deque(row for row in self._rows if row.session != session)
        gone = [row for row in self._rows if row.session == session]
        self._rows, self._bytes = kept, sum(len(row.sealed) for row in kept)
        self.oldest_s = min((row.arrived_s for row in kept), default=None)
        return {table: sum(row.table == table for row in gone) for table in ("blobs", "records")}

    def first(self, max_bytes: int) -> list[SealedRow]:
        """The oldest rows, of `max_bytes` together, but one at least where any waits."""
        rows: list[SealedRow] = []
        size = 0
        for row in self._rows:
            size += row.size_bytes
            if rows and size > max_bytes:
                break
            rows.append(row)
        return rows

    def done(self, rows: int) -> None:
        """The first `rows` are durable."""
        for _ in range(rows):
            self._bytes -= len(self._rows.popleft().sealed)
        self.oldest_s = min((row.arrived_s for row in self._rows), default=None)
