"""The byte cap: what is dropped when the file is full, inside the transaction that inserts; every item is counted.

The cap bounds the pages that are in use: whatever lies in the file, sealed or not, with its indexes, at what it really
takes. SQLite keeps both numbers in the file's header, so that a look costs microseconds and nothing is summed up.

Order: raw signal and records of the lowest priority, the oldest second first; then those of the next priority, and so
on; then stored windows, explanations, summaries and predictions, each the oldest first. Labels, alarms and sessions are
never dropped by the cap; they have shares of it (see `quota`).

On a full disk records of the last hour stay: a sender was told that they are kept, and keeps what is refused.

Room is made before rows are inserted, so that they take the pages that were freed: the file does not grow, and such a
page goes to the log once.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from bedside.agent.buffer.outputs import encode_outputs
from bedside.agent.buffer.places import RawPlaces
from bedside.agent.buffer.rows import Label, Prediction
from bedside.agent.buffer.schema import ID_PER_SECOND, RAW_TABLES, stream_number_of
from bedside.agent.buffer.waiting import OF_ONE_ROW

MAX_PREDICTIONS: Final = 1_000_000
"""Rows of predictions kept: about 100 MB, two weeks of one decision a second."""

MIN_HORIZON_S: Final = 60
"""Seconds of signal that a sound buffer holds at least."""

RECORDS_HORIZON_S: Final = 3_600
"""Seconds of records that a sound buffer holds at least: a sender was told that they are kept."""
YOUNG_RECORDS_WENT: Final = (
    "records of the last hour, which were acknowledged, had to make room for newer ones:"
    " see evicted-records in `bedside agent db status`, and raise cap_mib in [buffer]"
)

_PREDICTION: Final = (
    "stream",
    "session",
    "start_ns",
    "end_ns",
    "label",
    "confidence",
    "model",
    "latency_s",
    "model_name",
)
_BATCH_ROWS: Final = 16
_EVICTED: Final = {"blobs": "evicted-parts", "records": "evicted-records"}
_SMALL_BYTES: Final = 1_300
"""Rows of which a page holds three or more."""
_MAX_SMALL_ROWS: Final = 4_096
_DERIVED: Final = (
    ("windows", "id"),
    ("explanations", "prediction"),
    ("summaries", "id"),
    ("predictions", "id"),
)
"""What goes after the last raw row, in that order, and its key."""


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the file's pages that hold something."""
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    size = connection.execute("PRAGMA page_size").fetchone()[0]
    return (int(pages) - int(free)) * int(size)


class Evictor:
    """Keeps one buffer under its cap.

    Attributes:
        limit_bytes: the cap, or less while the disk has no room for it.
        is_short: whether the raw row that was dropped last was younger than `MIN_HORIZON_S`.
    """

    def __init__(
        self, places: RawPlaces, cap_bytes: int, priorities: Mapping[str, int], names: Mapping[int, str]
    ) -> None:
        """Prepare.

        Args:
            places: of the raw rows.
            cap_bytes: of pages in use.
            priorities: by stream; others have 0.
            names: of the streams by number, as the writer keeps them.
        """
        self._places = places
        self._priorities = priorities
        self._names = names
        self.cap_bytes = cap_bytes
        self.limit_bytes = cap_bytes
        self.is_short = False
        self._young_second: int | None = None

    @property
    def drops_young_records(self) -> bool:
        """Whether records that were younger than `RECORDS_HORIZON_S` made room, in the last hour that has rows."""
        young = self._young_second
        return young is not None and self._places.newest_second - young < RECORDS_HORIZON_S

    @property
    def squeezed(self) -> bool:
        """Whether the disk has no room for the whole cap."""
        return self.limit_bytes < self.cap_bytes

    def make_room(self, tx: sqlite3.Connection, room_bytes: int = 0) -> None:
        """Drop rows until `room_bytes` more would stay within the limit, or until nothing may be dropped."""
        gone: Counter[tuple[str, str, str]] = Counter()
        while used_bytes(tx) + room_bytes > self.limit_bytes:
            if not (self._drop_raw(tx, gone) or self._drop_derived(tx, gone)):
                break
        count_all(tx, gone)

    def _drop_raw(self, tx: sqlite3.Connection, gone: Counter[tuple[str, str, str]]) -> bool:
        """Drop the oldest second that holds rows of the lowest priority: those rows of it."""
        found = self._oldest()
        if found is None:
            return False
        second, numbers = found
        self.is_short = self._places.newest_second - second < MIN_HORIZON_S
        for table in RAW_TABLES:
            if table == "records" and self._spares_records(second):
                continue
            columns = f"id, session, {'samples' if table == 'blobs' else '0'} AS samples, length(sealed) AS size"
            rows = tx.execute(
                f"SELECT {columns} FROM {table} WHERE id BETWEEN ? AND ?",
                (second * ID_PER_SECOND, (second + 1) * ID_PER_SECOND - 1),
            ).fetchall()
            dropped = [row for row in rows if stream_number_of(row["id"]) in numbers]
            if dropped and table == "records" and self._places.newest_second - second < RECORDS_HORIZON_S:
                self._young_second = self._places.newest_second
            others = [row for row in rows if stream_number_of(row["id"]) not in numbers]
            small = [row["id"] for row in others if row["size"] < _SMALL_BYTES]
            for row in dropped:
                stream = self._names[stream_number_of(row["id"])]
                gone[stream, row["session"], _EVICTED[table]] += 1
                if row["samples"]:
                    gone[stream, row["session"], "evicted-samples"] += row["samples"]
            tx.executemany(f"DELETE FROM {table} WHERE id = ?", [(row["id"],) for row in dropped])
            if dropped and 0 < len(small) <= _MAX_SMALL_ROWS:
                _close_ranks(tx, table, small)
        return True

    def _oldest(self) -> tuple[int, set[int]] | None:
        """The second, and the numbers of all streams of the lowest priority that has rows."""
        spared: set[int] = set()
        while places := [
            (self._priorities.get(self._names[number], 0), self._places.first_second(number) or 0, number)
            for number in self._places.numbers()
            if number not in spared
        ]:
            lowest, bound, number = min(places)
            if self._places.oldest_second(number) == bound:
                if not (self._spares_records(bound) and self._places.has_records(number, bound)):
                    return bound, {other for priority, _, other in places if priority == lowest}
                spared.add(number)
        return None

    def _spares_records(self, second: int) -> bool:
        """Whether records of that second stay, and new ones are refused instead."""
        return self.squeezed and self._places.newest_second - second < RECORDS_HORIZON_S

    def _drop_derived(self, tx: sqlite3.Connection, gone: Counter[tuple[str, str, str]]) -> bool:
        for table, key in _DERIVED:
            rows = tx.execute(f"SELECT {key} AS key, session FROM {table} ORDER BY {key} LIMIT ?", (_BATCH_ROWS,))
            found = rows.fetchall()
            for row in found:
                tx.execute(f"DELETE FROM {table} WHERE {key} = ?", (row["key"],))
                stream = self._names[stream_number_of(row["key"])] if table == "summaries" else _stream_of(tx, row)
                gone[stream, row["session"], f"evicted-{table}"] += 1
            if found:
                return True
        return False


def _close_ranks(tx: sqlite3.Connection, table: str, ids: Sequence[int]) -> None:
    """Write small rows anew, so that they share pages again: what was dropped between them left holes in each.

    Rows lie in the order of time, and a page is given back when it is nearly empty only.
    """
    marks = ", ".join("?" * len(ids))
    rows = tx.execute(f"SELECT * FROM {table} WHERE id IN ({marks}) ORDER BY id", ids).fetchall()
    tx.execute(f"DELETE FROM {table} WHERE id IN ({marks})", ids)
    columns = rows[0].keys()
    values = ", ".join("?" * len(columns))
    tx.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})", [tuple(row) for row in rows])


def insert_predictions(tx: sqlite3.Connection, predictions: Sequence[Prediction]) -> None:
    """Insert under their numbers, and delete the oldest beyond `MAX_PREDICTIONS`, with what explains them.

    One that no column takes is dropped and counted alone.
    """
    if not predictions:
        return
    marks = ", ".join(f":{name}" for name in _PREDICTION)
    sql = f"INSERT INTO predictions (id, {', '.join(_PREDICTION)}, outputs) VALUES (:number, {marks}, :outputs)"
    for prediction in predictions:
        try:
            row = {name: getattr(prediction, name) for name in ("number", *_PREDICTION)}
            tx.execute(sql, row | {"outputs": encode_outputs(prediction.outputs)})
        except OF_ONE_ROW:
            count(tx, prediction.stream, prediction.session, "dropped-predictions", 1)
    oldest = predictions[-1].number - MAX_PREDICTIONS
    tx.execute("DELETE FROM explanations WHERE prediction <= ?", (oldest,))
    gone = tx.execute("DELETE FROM predictions WHERE id <= ?", (oldest,)).rowcount
    if gone > 0:
        count(tx, "", "", "evicted-predictions", gone)


def insert_label(tx: sqlite3.Connection, label: Label) -> int:
    """Insert a label and return its number."""
    return int(
        tx.execute(
            "INSERT INTO labels (stream, session, start_ns, end_ns, label, origin, value) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (label.stream, label.session, label.start_ns, label.end_ns, label.label, label.origin, label.value),
        ).lastrowid
        or 0
    )


def count(tx: sqlite3.Connection, stream: str, session: str, name: str, amount: int) -> None:
    """Add `amount` to a durable counter."""
    tx.execute(
        "INSERT INTO counters (stream, session, name, value) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (stream, session, name) DO UPDATE SET value = value + excluded.value",
        (stream, session, name, amount),
    )


def count_all(tx: sqlite3.Connection, amounts: Mapping[tuple[str, str, str], int]) -> None:
    """Add to durable counters, by stream, session and name."""
    for (stream, session, name), amount in amounts.items():
        count(tx, stream, session, name, amount)


def _stream_of(tx: sqlite3.Connection, row: sqlite3.Row) -> str:
    found = tx.execute("SELECT stream FROM sessions WHERE session = ?", (row["session"],)).fetchone()
    return str(found["stream"]) if found is not None else ""
