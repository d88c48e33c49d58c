"""What waits for the next group commit: sealed rows of signal and records, predictions, labels, and counters."""

from __future__ import annotations

import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bedside.agent.buffer.deliveries import Delivery
from bedside.agent.buffer.quarantine import OTHER, merged
from bedside.agent.buffer.rows import Label, Prediction, Quarantined
from bedside.agent.buffer.schema import ids_of
from bedside.core.errors import StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.ondevice.windows.part import NS_PER_S, Part, end_ns

MAX_WAITING_BYTES: Final = 8 << 20
"""Sealed bytes held while the disk refuses: about an hour of 8 channels at 250 Hz. While a commit is under way
as much again may wait behind it."""
MAX_WAITING_PREDICTIONS: Final = 10_000
MAX_WAITING_LABELS: Final = 10_000
MAX_WAITING_KINDS: Final = 1_000
"""Kinds of readings that nobody understands; what is new beyond them is counted under its source and reason alone."""
DROPPED: Final = {"blobs": "dropped-parts", "records": "dropped-records"}
"""By table, the counter of rows that were never stored."""
OF_ONE_ROW: Final = (
    *(OverflowError, ValueError, TypeError, StoreError),
    *(sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError),
)
"""What an INSERT raises on a row that no column takes; every other error is the database's."""

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
    stream: StreamId, session: SessionId, time_ns: int, sealed: bytes, key_id: int, arrived_s: float, number: int = 0
) -> SealedRow:
    """A record as a row of `records`; it has a number where a sink wants it."""
    columns: dict[str, int | float | str] = {"time_ns": time_ns, "key_id": key_id, "number": number}
    return SealedRow("records", stream, session, time_ns // NS_PER_S, columns, sealed, arrived_s)


class Waiting:
    """What waits, in the order in which it came, up to a bound; the oldest goes first, and is counted.

    Attributes:
        predictions: each with the monotonic time of its decision.
        labels: that sources said, each with the monotonic time of its arrival; the newest beyond a bound is dropped.
        counts: to be added to durable counters, by stream, session and name.
        unmapped: to be counted in the quarantine, by source, reason and what it was.
        deliveries: how far sinks have come, by name and sort.
    """

    def __init__(self, lost: Callable[[StreamId], None]) -> None:
        """Begin with nothing; `lost` is told of each stream of which something goes because too much waits."""
        self._lost = lost
        self._rows: deque[SealedRow] = deque()
        self._bytes = 0
        self._oldest_row_s: float | None = None
        self.predictions: deque[tuple[float, Prediction]] = deque()
        self.labels: deque[tuple[float, Label]] = deque()
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.unmapped: dict[tuple[str, str, str], Quarantined] = {}
        self._oldest_unmapped_s: float | None = None
        self.deliveries: dict[tuple[str, str], Delivery] = {}
        self._oldest_delivery_s: float | None = None

    def __bool__(self) -> bool:
        return bool(self._rows or self.predictions or self.labels or self.counts or self.unmapped or self.deliveries)

    @property
    def rows(self) -> Sequence[SealedRow]:
        """The sealed rows."""
        return self._rows

    @property
    def oldest_s(self) -> float | None:
        """Monotonic time of the first sample, decision or label; None when none waits."""
        oldest = [self._oldest_row_s] if self._oldest_row_s is not None else []
        oldest += [self.predictions[0][0]] if self.predictions else []
        oldest += [self.labels[0][0]] if self.labels else []
        oldest += [self._oldest_unmapped_s] if self._oldest_unmapped_s is not None else []
        oldest += [self._oldest_delivery_s] if self._oldest_delivery_s is not None else []
        return min(oldest, default=None)

    def add(self, row: SealedRow) -> None:
        """Let a row wait."""
        self._rows.append(row)
        self._oldest_row_s = row.arrived_s if self._oldest_row_s is None else min(self._oldest_row_s, row.arrived_s)
        self._bytes += len(row.sealed)
        while self._bytes > MAX_WAITING_BYTES:
            dropped = self._rows.popleft()
            self._bytes -= len(dropped.sealed)
            self.counts[dropped.stream, dropped.session, DROPPED[dropped.table]] += 1
            self._lost(dropped.stream)

    def add_prediction(self, prediction: Prediction, decided_s: float) -> None:
        """Let a prediction wait."""
        self.predictions.append((decided_s, prediction))
        if len(self.predictions) > MAX_WAITING_PREDICTIONS:
            _, oldest = self.predictions.popleft()
            self.counts[oldest.stream, oldest.session, "dropped-predictions"] += 1

    def add_label(self, label: Label, arrived_s: float) -> None:
        """Let a label wait."""
        if len(self.labels) < MAX_WAITING_LABELS:
            self.labels.append((arrived_s, label))
        else:
            self.counts[label.stream, label.session, "dropped-labels"] += 1
            self._lost(label.stream)

    def add_unmapped(self, row: Quarantined, arrived_s: float) -> None:
        """Let a count of the quarantine wait; those of a kind are added up."""
        if row.kind not in self.unmapped and len(self.unmapped) >= MAX_WAITING_KINDS:
            row = replace(row, what=OTHER)
        before = self.unmapped.get(row.kind)
        self.unmapped[row.kind] = row if before is None else merged(before, row)
        if self._oldest_unmapped_s is None:
            self._oldest_unmapped_s = arrived_s

    def add_delivery(self, delivery: Delivery, noted_s: float) -> None:
        """Let word of how far a sink has come wait; only the newest counts."""
        self.deliveries[delivery.sink, delivery.what] = delivery
        if self._oldest_delivery_s is None:
            self._oldest_delivery_s = noted_s

    def drop(self, session: SessionId) -> dict[str, int]:
        """Let go of all of a session; return how many rows by table."""
        gone = [row for row in self._rows if row.session == session]
        self._rows = deque(row for row in self._rows if row.session != session)
        self._bytes = sum(len(row.sealed) for row in self._rows)
        self._oldest_row_s = min((row.arrived_s for row in self._rows), default=None)
        self.predictions = deque(pair for pair in self.predictions if pair[1].session != session)
        labels = len(self.labels)
        self.labels = deque(pair for pair in self.labels if pair[1].session != session)
        self.counts = Counter({key: amount for key, amount in self.counts.items() if key[1] != session})
        rows = {table: sum(row.table == table for row in gone) for table in DROPPED}
        return rows | {"labels": labels - len(self.labels)}

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
        """The first `rows`, every prediction, label and counter are durable."""
        for _ in range(rows):
            self._bytes -= len(self._rows.popleft().sealed)
        self._oldest_row_s = min((row.arrived_s for row in self._rows), default=None)
        self.predictions.clear()
        self.labels.clear()
        self.counts.clear()
        self.unmapped.clear()
        self._oldest_unmapped_s = None
        self.deliveries.clear()
        self._oldest_delivery_s = None

    def follow(self, later: Waiting) -> None:
        """Let what came later wait behind this."""
        self.counts.update(later.counts)
        for row in later.rows:
            self.add(row)
        for decided_s, prediction in later.predictions:
            self.add_prediction(prediction, decided_s)
        for arrived_s, label in later.labels:
            self.add_label(label, arrived_s)
        for kind in later.unmapped.values():
            self.add_unmapped(kind, later._oldest_unmapped_s or 0.0)
        for delivery in later.deliveries.values():
            self.add_delivery(delivery, later._oldest_delivery_s or 0.0)
