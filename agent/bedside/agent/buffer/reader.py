"""The buffer's read side: its own read-only connection, in the agent or in a child process, beside the writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bedside.agent.buffer.keys import Keys
from bedside.agent.buffer.part import NS_PER_S, Part, Run, offset_ns
from bedside.agent.buffer.rows import Label, Prediction, Session
from bedside.agent.buffer.schema import ID_PER_SECOND, MAX_STREAMS, PART_BITS, second_of
from bedside.agent.buffer.seal import Sealer
from bedside.core.errors import MalformedError, StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Samples
from bedside.service.sqlite import open_reader, reading

_PAGE_ROWS: Final = 64
"""Rows read at a time, so that a long reading never holds a snapshot that keeps the log from being checkpointed."""
_LAST_ID: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Stretch:
    """Gap-free samples.

    Attributes:
        start_ns: time of the first sample.
        values: shape (samples, channels), as stored.
        scale: physical value = value times `scale`.
    """

    start_ns: int
    rate_hz: float
    values: Samples
    unit: str
    metric: str
    scale: float


class BufferReader:
    """Reads one buffer file.

    Attributes:
        unreadable: parts that were skipped because they did not open.
    """

    def __init__(self, path: Path, keys: Keys) -> None:
        """Open.

        Raises:
            StoreError: `store-open`.
        """
        self._connection = open_reader(path)
        self._path = path
        self._sealer = Sealer(keys)
        self.unreadable = 0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def sessions(self, stream: StreamId | None = None) -> list[Session]:
        """Sessions in the order in which they were opened."""
        rows = self._rows("SELECT * FROM sessions WHERE ? IS NULL OR stream = ? ORDER BY number", stream, stream)
        return [_session(row) for row in rows]

    def parts(self, stream: StreamId, session: SessionId, from_ns: int = 0, to_ns: int | None = None) -> Iterator[Part]:
        """Yield the stored parts that touch the time from `from_ns` to `to_ns` (exclusive), in the order of time."""
        numbers = self._rows("SELECT number FROM streams WHERE name = ?", stream)
        if not numbers:
            return
        after = (from_ns // NS_PER_S) * ID_PER_SECOND - 1
        end_id = _LAST_ID if to_ns is None else min(_LAST_ID, (to_ns // NS_PER_S + 1) * ID_PER_SECOND)
        while rows := self._rows(
            "SELECT id, start_ns, end_ns, sealed FROM blobs WHERE id > ? AND id < ? AND session = ?"
            f" AND ((id >> {PART_BITS}) & {MAX_STREAMS - 1}) = ? ORDER BY id LIMIT ?",
            *(after, end_id, session, numbers[0]["number"], _PAGE_ROWS),
        ):
            after = rows[-1]["id"]
            for row in _in_time(rows):
                if row["end_ns"] <= from_ns or (to_ns is not None and row["start_ns"] >= to_ns):
                    continue
                try:
                    yield self._sealer.open(row["sealed"], stream, session, second_of(row["id"]))
                except (StoreError, MalformedError):
                    self.unreadable += 1

    def read_range(
        self, stream: StreamId, session: SessionId, from_ns: int = 0, to_ns: int | None = None
    ) -> list[Stretch]:
        """Samples of the time from `from_ns` to `to_ns` (exclusive): one stretch per gap-free run."""
        runs: list[tuple[Run, list[Part]]] = []
        for whole in self.parts(stream, session, from_ns, to_ns):
            part = _clip(whole, from_ns, to_ns)
            if part is None:
                continue
            block = part.block()
            if not runs or not runs[-1][0].continues(block, session):
                runs.append((Run.begin(block, session), []))
            runs[-1][0].samples += len(part.values)
            runs[-1][1].append(part)
        return [_stretch(parts) for _, parts in runs]

    def labels(self, session: SessionId, *, withdrawn: bool = False) -> list[Label]:
        """Labels of a session by start; the withdrawn ones only when asked for."""
        rows = self._rows(
            "SELECT * FROM labels WHERE session = ? AND (? OR NOT withdrawn) ORDER BY start_ns, id", session, withdrawn
        )
        return [_label(row) for row in rows]

    def predictions(self, after: int = 0, limit: int = 1_000) -> list[Prediction]:
        """Predictions with a number above `after`, in order; call again with the last number to follow."""
        rows = self._rows("SELECT * FROM predictions WHERE id > ? ORDER BY id LIMIT ?", after, limit)
        return [_prediction(row) for row in rows]

    def last_prediction(self) -> Prediction | None:
        """The newest prediction."""
        rows = self._rows("SELECT * FROM predictions ORDER BY id DESC LIMIT 1")
        return _prediction(rows[0]) if rows else None

    def counters(self) -> dict[str, int]:
        """Durable counters by name, summed over streams and sessions."""
        rows = self._rows("SELECT name, sum(value) AS total FROM counters GROUP BY name")
        return {str(row["name"]): int(row["total"]) for row in rows}

    def rows(self) -> dict[str, int]:
        """Number of rows per table."""
        tables = ("sessions", "blobs", "labels", "predictions")
        return {table: int(self._rows(f"SELECT count(*) FROM {table}")[0][0]) for table in tables}

    def oldest_ns(self) -> int | None:
        """Time of the oldest sample that is still there."""
        rows = self._rows("SELECT start_ns FROM blobs ORDER BY id LIMIT 1")
        return int(rows[0]["start_ns"]) if rows else None

    def _rows(self, sql: str, *parameters: str | int | None) -> list[sqlite3.Row]:
        """Every row of one SELECT. Raises StoreError `store-read`."""
        with reading(self._path):
            return self._connection.execute(sql, parameters).fetchall()


def _in_time(rows: list[sqlite3.Row]) -> list[sqlite3.Row]:
    """Order the parts of one second by their start; late ones have later ids."""
    return sorted(rows, key=lambda row: (second_of(row["id"]), row["start_ns"], row["id"]))


def _clip(part: Part, from_ns: int, to_ns: int | None) -> Part | None:
    times = part.start_ns + np.array([offset_ns(i, part.rate_hz) for i in range(len(part.values))], np.int64)
    inside = (times >= from_ns) & (times < (to_ns if to_ns is not None else _LAST_ID))
    kept = np.flatnonzero(inside)
    if not kept.size:
        return None
    first, last = int(kept[0]), int(kept[-1]) + 1
    return Part(
        part.stream,
        part.session,
        part.second,
        int(times[first]),
        part.rate_hz,
        part.values[first:last],
        part.unit,
        part.metric,
        part.scale,
        part.quality,
    )


def _stretch(parts: list[Part]) -> Stretch:
    first = parts[0]
    values = np.concatenate([part.values for part in parts])
    return Stretch(first.start_ns, first.rate_hz, values, first.unit, first.metric, first.scale)


def _session(row: sqlite3.Row) -> Session:
    return Session(
        SessionId(row["session"]),
        StreamId(row["stream"]),
        row["opened_ns"],
        row["closed_ns"],
        bool(row["consent_training"]),
        row["origin"],
    )


def _label(row: sqlite3.Row) -> Label:
    return Label(
        StreamId(row["stream"]),
        SessionId(row["session"]),
        row["start_ns"],
        row["end_ns"],
        row["label"],
        row["origin"],
        bool(row["withdrawn"]),
        row["id"],
    )


def _prediction(row: sqlite3.Row) -> Prediction:
    return Prediction(
        StreamId(row["stream"]),
        SessionId(row["session"]),
        row["start_ns"],
        row["end_ns"],
        row["label"],
        row["confidence"],
        row["model"],
        row["latency_s"],
        row["model_name"],
        row["id"],
    )
