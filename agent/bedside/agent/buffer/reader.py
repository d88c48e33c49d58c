"""The buffer's read side: its own read-only connection, in the agent or in a child process, beside the writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from bedside.agent.buffer.alarms import alarm_of
from bedside.agent.buffer.decoding import label_of, prediction_of, session_of
from bedside.agent.buffer.derived import open_explanation, open_summary, open_window
from bedside.agent.buffer.eviction import used_bytes
from bedside.agent.buffer.expiry import Swept
from bedside.agent.buffer.keys import Keys
from bedside.agent.buffer.quarantine import SELECT as SELECT_QUARANTINE
from bedside.agent.buffer.quarantine import row_of as quarantined_row
from bedside.agent.buffer.records import decode_record, record_place
from bedside.agent.buffer.rows import Alarm, Explanation, Label, Prediction, Quarantined, Session, StoredWindow, Summary
from bedside.agent.buffer.schema import ID_PER_SECOND, LAST_NS, OF_A_SESSION, RAW_TABLES, SALVAGE, ids_of, second_of
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.tags import TAG, any_text, is_sound
from bedside.agent.buffer.walk import pages, walk
from bedside.core.errors import MalformedError, StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Record
from bedside.ondevice.windows.part import NS_PER_MINUTE, NS_PER_S, Part, Place, Run, Stretch, offset_ns
from bedside.service.sqlite import open_reader, reading

_PAGE_ROWS: Final = 64
"""Rows read at a time, so that a long reading never holds a snapshot that keeps the log from being checkpointed."""
_SLACK_NS: Final = 3_600 * NS_PER_S
"""Signal stays for a while before the time up to which it has expired; and files of an older version may hold samples
from before their session's opening, by its gap."""
_OLD: Final[dict[Swept, str]] = {
    "windows": "SELECT id FROM windows WHERE end_ns < ? LIMIT ?",
    "labels": "SELECT id FROM labels WHERE end_ns < ? LIMIT ?",
    "alarms": "SELECT id FROM alarms WHERE raised_ns < ? LIMIT ?",
    "summaries": f"SELECT id FROM summaries WHERE id < (?1 / {NS_PER_MINUTE}) * {ID_PER_SECOND} LIMIT ?",
    "predictions": "SELECT id FROM predictions WHERE id < (SELECT min(id) + ?2 FROM predictions) AND end_ns < ?1",
    "explanations": "SELECT prediction FROM explanations WHERE prediction <"
    " (SELECT min(id) FROM predictions WHERE end_ns >= ?1) LIMIT ?2",
}
"""Predictions go in the order in which they were made, explanations after them."""


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
        self._connection = open_reader(path, remedy=SALVAGE)
        self._connection.text_factory = any_text
        self._path = path
        self._sealer = Sealer(keys)
        self.unreadable = 0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def sessions(self, stream: StreamId | None = None, *, newest: int = -1) -> list[Session]:
        """Sessions in the order in which they were opened; only so many of the `newest` unless that is negative."""
        rows = self._rows(
            "SELECT * FROM sessions WHERE ? IS NULL OR stream = ? ORDER BY number DESC LIMIT ?", stream, stream, newest
        )
        return [session_of(row) for row in reversed(rows)]

    def session(self, session: SessionId) -> Session | None:
        """One session; None when there is no such one."""
        rows = self._rows("SELECT * FROM sessions WHERE session = ?", session)
        return session_of(rows[0]) if rows else None

    def sessions_named(self, name: str, *, prefix: bool) -> list[Session]:
        """The session of this id, or with `prefix` up to three whose ids begin so."""
        rows = self._rows("SELECT * FROM sessions WHERE session = ?", name)
        if not rows and prefix:
            rows = self._rows("SELECT * FROM sessions WHERE substr(session, 1, ?) = ? LIMIT 3", len(name), name)
        return [session_of(row) for row in rows]

    def streams(self) -> list[StreamId]:
        """Streams that anything is stored of."""
        rows = self._rows("SELECT name FROM streams UNION SELECT stream FROM sessions ORDER BY 1")
        return [StreamId(row[0]) for row in rows]

    def open_streams(self) -> frozenset[str]:
        """Streams with an open session."""
        return frozenset(row["stream"] for row in self._rows("SELECT stream FROM sessions WHERE closed_ns IS NULL"))

    def refused(self, stream: StreamId) -> bool:
        """Whether somebody refused that sessions of a stream which begin by themselves are trained on."""
        return bool(self._rows("SELECT 1 FROM streams WHERE name = ? AND refused", stream))

    def parts(self, stream: StreamId, session: SessionId, from_ns: int = 0, to_ns: int | None = None) -> Iterator[Part]:
        """Yield the stored parts that touch the time from `from_ns` to `to_ns` (exclusive), in the order of time."""
        for _, part in self.numbered_parts(stream, session, from_ns, to_ns):
            yield part

    def places(self, stream: StreamId, session: SessionId, to_ns: int) -> Iterator[Place]:
        """Yield where a session's parts up to a time lie, in the order of time; opens none of them."""
        numbers = self._rows("SELECT number FROM streams WHERE name = ?", stream)
        known = self.session(session)
        opened_ns = known.opened_ns - _SLACK_NS if known is not None else 0
        columns, first = "id, start_ns, samples, rate_hz, channels, dtype", max(0, opened_ns) // NS_PER_S
        number = int(numbers[0]["number"]) if numbers else -1
        for rows in pages(self._run, "blobs", columns, number, session, first, to_ns // NS_PER_S):
            for row in rows:
                form = (row["rate_hz"], row["channels"], row["dtype"])
                yield Place(row["start_ns"], row["samples"], row["rate_hz"], form)

    def numbered_parts(
        self, stream: StreamId, session: SessionId, from_ns: int = 0, to_ns: int | None = None
    ) -> Iterator[tuple[int, Part]]:
        """As `parts`, each with its id."""
        for rows in self._walk("blobs", "*", stream, session, from_ns, to_ns):
            for row in sorted(rows, key=lambda row: (row["start_ns"], row["id"])):
                if row["end_ns"] <= from_ns or (to_ns is not None and row["start_ns"] >= to_ns):
                    continue
                try:
                    yield row["id"], self._sealer.open(row["sealed"], stream, session, second_of(row["id"]))
                except (StoreError, MalformedError):
                    self.unreadable += 1

    def records(
        self, stream: StreamId, session: SessionId, from_ns: int = 0, to_ns: int | None = None
    ) -> Iterator[Record]:
        """Yield the stored records of the time from `from_ns` to `to_ns` (exclusive), in the order of time."""
        for _, record in self.numbered_records(stream, session, from_ns, to_ns):
            yield record

    def numbered_records(
        self, stream: StreamId, session: SessionId, from_ns: int = 0, to_ns: int | None = None
    ) -> Iterator[tuple[int, Record]]:
        """As `records`, each with its id."""
        for rows in self._walk("records", "*", stream, session, from_ns, to_ns):
            for row in sorted(rows, key=lambda row: (row["time_ns"], row["id"])):
                time_ns = row["time_ns"]
                if time_ns < from_ns or (to_ns is not None and time_ns >= to_ns):
                    continue
                try:
                    content = self._sealer.open_row(row["sealed"], record_place(stream, session, time_ns))
                    yield row["id"], decode_record(content, stream, time_ns)
                except (StoreError, MalformedError):
                    self.unreadable += 1

    def windows(self, session: SessionId, spec: bytes) -> Iterator[StoredWindow]:
        """Yield a session's stored windows of the specification with this digest, by start."""
        after = -1
        while rows := self._rows(
            "SELECT * FROM windows WHERE session = ? AND spec = ? AND start_ns > ? ORDER BY start_ns LIMIT ?",
            *(session, spec, after, _PAGE_ROWS),
        ):
            after = rows[-1]["start_ns"]
            for row in rows:
                try:
                    yield open_window(self._sealer, row)
                except (StoreError, MalformedError):
                    self.unreadable += 1

    def summaries(
        self, stream: StreamId, session: SessionId, from_ns: int = 0, to_ns: int | None = None
    ) -> Iterator[Summary]:
        """Yield a session's summaries of the minutes from `from_ns` to `to_ns`, in the order of time."""
        for rows in self._walk("summaries", "*", stream, session, from_ns, to_ns):
            for row in rows:
                try:
                    yield open_summary(self._sealer, row["sealed"], stream, session, second_of(row["id"]))
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
        return [label_of(row) for row in rows]

    def last_label(self) -> int:
        """Number of the newest label; 0 without any."""
        return int(self._rows("SELECT coalesce(max(id), 0) FROM labels")[0][0])

    def latest_labels(self, stream: StreamId, limit: int, *, withdrawn: bool = False) -> list[Label]:
        """The latest labels of all sessions of a stream, by start; the withdrawn ones only when asked for."""
        rows = self._rows(
            "SELECT * FROM labels WHERE stream = ? AND (? OR NOT withdrawn) ORDER BY start_ns DESC, id DESC LIMIT ?",
            *(stream, withdrawn, limit),
        )
        return [label_of(row) for row in reversed(rows)]

    def predictions(
        self, after: int = 0, limit: int = 1_000, *, session: SessionId | None = None, stream: StreamId | None = None
    ) -> list[Prediction]:
        """Predictions with a number above `after`, in order; call again with the last number to follow."""
        rows = self._rows(
            "SELECT * FROM predictions WHERE id > ?1 AND (?2 IS NULL OR session = ?2) AND (?3 IS NULL OR stream = ?3)"
            " ORDER BY id LIMIT ?4",
            *(after, session, stream, limit),
        )
        return [prediction_of(row) for row in rows]

    def prediction(self, number: int) -> Prediction | None:
        """One prediction; None when there is none of that number."""
        rows = self._rows("SELECT * FROM predictions WHERE id = ?", number)
        return prediction_of(rows[0]) if rows else None

    def explanation(self, number: int) -> Explanation | None:
        """Why the prediction of that number was made; None when nobody asked.

        Raises:
            StoreError: `blob-sealed`, `blob-swapped`.
            MalformedError: `blob-format`.
        """
        rows = self._rows("SELECT * FROM explanations WHERE prediction = ?", number)
        return open_explanation(self._sealer, rows[0]) if rows else None

    def last_prediction(self) -> Prediction | None:
        """The newest prediction."""
        rows = self._rows("SELECT * FROM predictions ORDER BY id DESC LIMIT 1")
        return prediction_of(rows[0]) if rows else None

    def newest_parts(self, stream: StreamId, count: int) -> list[Part]:
        """The last `count` stored parts of a stream, in the order of time, when they are of the file's last minute."""
        numbers = self._rows("SELECT number FROM streams WHERE name = ?", stream)
        newest = self._rows("SELECT max(id) AS id FROM blobs")[0]["id"]
        if not numbers or newest is None:
            return []
        found: list[sqlite3.Row] = []
        for second in range(second_of(newest), max(0, second_of(newest) - 60), -1):
            found += self._rows(
                "SELECT id, session, start_ns, sealed FROM blobs WHERE id BETWEEN ? AND ? ORDER BY id DESC",
                *ids_of(second, numbers[0]["number"]),
            )
            if len(found) >= count:
                break
        in_time = sorted(found[:count], key=lambda row: (row["start_ns"], row["id"]))
        return [self._sealer.open(row["sealed"], stream, row["session"], second_of(row["id"])) for row in in_time]

    def alarms(self, limit: int, *, open_only: bool = False) -> list[Alarm]:
        """The newest alarms, as they were raised; `open_only` leaves out what has cleared and has been seen."""
        where = "WHERE cleared_ns = 0 OR acknowledged_ns = 0" if open_only else ""
        rows = self._rows(f"SELECT * FROM alarms {where} ORDER BY id DESC LIMIT ?", limit)
        return [alarm_of(row) for row in reversed(rows)]

    def quarantine(self, source: str = "", reason: str = "") -> list[Quarantined]:
        """What sources could not understand, of a source and a reason, of all where empty."""
        return [quarantined_row(row) for row in self._rows(SELECT_QUARANTINE, source, reason)]

    def counters(self) -> dict[str, int]:
        """Durable counters by name, summed over streams and sessions."""
        rows = self._rows("SELECT name, sum(value) AS total FROM counters GROUP BY name")
        return {str(row["name"]): int(row["total"]) for row in rows}

    def rows(self) -> dict[str, int]:
        """Number of rows per table."""
        return {table: int(self._rows(f"SELECT count(*) FROM {table}")[0][0]) for table in OF_A_SESSION}

    @property
    def used_bytes(self) -> int:
        """Of the file's pages that hold something; never waits for the writer."""
        with reading(self._path, remedy=SALVAGE):
            return used_bytes(self._connection)

    def oldest_ns(self) -> int | None:
        """Time of the oldest sample or record that is still there."""
        tables = (("blobs", "start_ns"), ("records", "time_ns"))
        found = [self._rows(f"SELECT {column} AS at_ns FROM {table} ORDER BY id LIMIT 1") for table, column in tables]
        return min((int(rows[0]["at_ns"]) for rows in found if rows), default=None)

    def first_raw_ns(self, stream: StreamId, session: SessionId, from_ns: int, to_ns: int) -> int | None:
        """Time of the first part or record that begins from `from_ns` to `to_ns`; None when there is none."""
        found = []
        for table, column in (("blobs", "start_ns"), ("records", "time_ns")):
            for rows in self._walk(table, f"id, {column} AS at_ns", stream, session, from_ns, to_ns):
                times = [row["at_ns"] for row in rows if from_ns <= row["at_ns"] <= to_ns]
                if times:
                    found.append(min(times))
                    break
        return min(found, default=None)

    def raw_ids(self, table: str, stream: StreamId, session: SessionId) -> list[int]:
        """Ids of a session's parts or records."""
        return [int(row["id"]) for rows in self._walk(table, "id", stream, session, 0, None) for row in rows]

    def unexpired(self) -> list[Session]:
        """Sessions of which raw rows may be left, in the order of their times."""
        return [session_of(row) for row in self._rows(
            f"SELECT * FROM sessions WHERE expired_ns < {LAST_NS} ORDER BY opened_ns, number"
        )]  # fmt: skip

    def old_keys(self, table: Swept, before_ns: int, limit: int) -> list[int]:
        """Up to `limit` keys of rows that are from before a time."""
        return [row[0] for row in self._rows(_OLD[table], before_ns, limit)]

    def old_sessions(self, before_ns: int, limit: int) -> list[SessionId]:
        """Up to `limit` sessions that were closed before a time and have nothing raw left."""
        return [SessionId(row[0]) for row in self._rows(
            f"SELECT session FROM sessions WHERE closed_ns < ? AND expired_ns = {LAST_NS} LIMIT ?", before_ns, limit
        )]  # fmt: skip

    def _walk(
        self, table: str, columns: str, stream: StreamId, session: SessionId, from_ns: int, to_ns: int | None
    ) -> Iterator[list[sqlite3.Row]]:
        """The rows of each second (of each minute for summaries), within the times of the session."""
        numbers = self._rows("SELECT number FROM streams WHERE name = ?", stream)
        known = self.session(session)
        if not numbers:
            return iter(())
        raw = table in RAW_TABLES
        unit_ns = NS_PER_S if raw else NS_PER_MINUTE
        first_ns, last_ns = from_ns, LAST_NS if to_ns is None else to_ns
        if known is not None:  # damage may have cost its row
            first_ns = max(first_ns, (max(known.opened_ns, known.expired_ns) if raw else known.opened_ns) - _SLACK_NS)
            last_ns = min(last_ns, LAST_NS if known.closed_ns is None else known.closed_ns + _SLACK_NS)
        number = int(numbers[0]["number"])
        return walk(self._run, table, columns, number, session, first_ns // unit_ns, last_ns // unit_ns)

    def _rows(self, sql: str, *parameters: str | int | bytes | None) -> list[sqlite3.Row]:
        """Every row of one SELECT. Raises StoreError `store-read`."""
        return self._run(sql, parameters)

    def _run(self, sql: str, parameters: Sequence[str | int | float | bytes | None]) -> list[sqlite3.Row]:
        with reading(self._path, remedy=SALVAGE):
            rows = self._connection.execute(sql, parameters).fetchall()
        whole = bool(rows) and TAG in rows[0].keys()  # noqa: SIM118
        sound = [row for row in rows if is_sound(row)] if whole else rows
        self.unreadable += len(rows) - len(sound)
        return sound


def _clip(part: Part, from_ns: int, to_ns: int | None) -> Part | None:
    times = part.start_ns + np.array([offset_ns(i, part.rate_hz) for i in range(len(part.values))], np.int64)
    inside = (times >= from_ns) & (times < (to_ns if to_ns is not None else LAST_NS))
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
