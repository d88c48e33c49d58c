"""Reading what a sink delivers, beside the writer: a page above a number, of the rows that its selection lets through.

The selection is part of the SQL, so that what is counted as waiting is what will be sent. Whoever holds a page holds
no snapshot: rows of a session that is erased are not on the next page.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bedside.agent.buffer.alarms import alarm_of
from bedside.agent.buffer.decoding import prediction_of
from bedside.agent.buffer.deliveries import NUMBERED, newest_number
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.records import decode_record, record_place
from bedside.agent.buffer.rows import Alarm, Prediction
from bedside.agent.buffer.schema import PART_BITS, SALVAGE, STREAM_BITS, first_id, stream_number_of
from bedside.core.errors import MalformedError, StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Record
from bedside.ondevice.windows.part import NS_PER_S
from bedside.service.sqlite import reading

Sort = Literal["alarms", "predictions", "records"]
Parameters = list[str | int | float]
Stored = Prediction | Alarm | Record

_BACK_ROWS: Final = 10_000
"""How many predictions back the one before may lie; beyond that a label counts as changed."""
_STREAM: Final = f"(id >> {PART_BITS}) & {(1 << STREAM_BITS) - 1}"
_CHANGED: Final = (
    "NOT coalesce((SELECT before.label = predictions.label AND before.session = predictions.session"
    " FROM predictions AS before WHERE before.id < predictions.id"
    f" AND before.id >= predictions.id - {_BACK_ROWS} AND before.stream = predictions.stream"
    " AND before.model_name = predictions.model_name ORDER BY before.id DESC LIMIT 1), 0)"
)
_SINCE: Final = {
    "alarms": "max(raised_ns, cleared_ns, acknowledged_ns, escalated_ns) >= ?",
    "predictions": "end_ns >= ?",
    "records": "id >= ?",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows a sink wants.

    Attributes:
        streams: of these; empty = of every one.
        models: predictions of these; empty = of every one.
        labels: predictions of these classes; empty = of every one.
        min_confidence: predictions of this probability or more.
        only_changes: a prediction only where the one of its stream and model before has another label or session.
    """

    streams: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    min_confidence: float = 0.0
    only_changes: bool = False


@dataclass(frozen=True, slots=True)
class Numbered:
    """A row of a queue.

    Attributes:
        number: by which it is delivered.
        place: its key in its table.
        session: whose it is; never sent.
        row: what it says; None where it cannot be read, so that whoever asks can count it and go on behind it.
    """

    number: int
    place: int
    session: SessionId
    row: Stored | None


class OutgoingReader(BufferReader):
    """A reader of its own for each sink; use it in one thread."""

    def newest(self, sort: Sort) -> int:
        """The highest number that is stored.

        Raises:
            StoreError: `store-read`.
        """
        with reading(self._path, remedy=SALVAGE):
            return newest_number(self._connection, sort)

    def page(self, sort: Sort, selection: Selection, after: int, upto: int, limit: int) -> list[Numbered]:
        """Up to `limit` rows with numbers above `after` and up to `upto`, in their order."""
        column = NUMBERED[sort]
        where, parameters = self._where(sort, selection)
        rows = self._run(
            f"SELECT * FROM {sort} WHERE {column} > ? AND {column} <= ?{where} ORDER BY {column} LIMIT ?",
            [after, upto, *parameters, limit],
        )
        return self._numbered(sort, rows)

    def count(self, sort: Sort, selection: Selection, after: int, upto: int) -> int:
        """How many rows `page` has in all."""
        column = NUMBERED[sort]
        where, parameters = self._where(sort, selection)
        sql = f"SELECT count(*) FROM {sort} WHERE {column} > ? AND {column} <= ?{where}"
        return int(self._run(sql, [after, upto, *parameters])[0][0])

    def number_at(self, sort: Sort, selection: Selection, after: int, upto: int, place: int) -> int:
        """The number of the row at a place of them, from 1; there are so many."""
        column = NUMBERED[sort]
        where, parameters = self._where(sort, selection)
        sql = f"SELECT {column} FROM {sort} WHERE {column} > ? AND {column} <= ?{where} ORDER BY {column}"
        return int(self._run(f"{sql} LIMIT 1 OFFSET ?", [after, upto, *parameters, place - 1])[0][0])

    def since(self, sort: Sort, selection: Selection, since_ns: int, after: int, limit: int) -> list[Numbered]:
        """Up to `limit` rows of a time and later, by place, above the place `after`; also those without a number."""
        where, parameters = self._where(sort, selection)
        from_ns = since_ns if sort != "records" else first_id(since_ns // NS_PER_S, 0)
        rows = self._run(
            f"SELECT * FROM {sort} WHERE id > ? AND {_SINCE[sort]}{where} ORDER BY id LIMIT ?",
            [after, from_ns, *parameters, limit],
        )
        return self._numbered(sort, rows)

    def newest_rows(self, sort: Sort, selection: Selection, limit: int) -> list[Numbered]:
        """The newest rows that a sink would send, whether it has or not."""
        where, parameters = self._where(sort, selection)
        sql = f"SELECT * FROM {sort} WHERE id > 0{where} ORDER BY id DESC LIMIT ?"
        return self._numbered(sort, self._run(sql, [*parameters, limit])[::-1])

    def _where(self, sort: Sort, selection: Selection) -> tuple[str, Parameters]:
        terms: list[str] = []
        parameters: Parameters = []

        def among(column: str, values: Sequence[str | int]) -> None:
            if values:
                terms.append(f"{column} IN ({', '.join('?' * len(values))})")
                parameters.extend(values)

        if sort == "records":
            known = {str(row["name"]): int(row["number"]) for row in self._run("SELECT * FROM streams", ())}
            among(_STREAM, [known.get(stream, -1) for stream in selection.streams])
        else:
            among("stream", selection.streams)
        if sort == "predictions":
            among("model_name", selection.models)
            among("label", selection.labels)
            if selection.min_confidence > 0:
                terms.append("confidence >= ?")
                parameters.append(selection.min_confidence)
            if selection.only_changes:
                terms.append(_CHANGED)
        return "".join(f" AND {term}" for term in terms), parameters

    def _numbered(self, sort: Sort, rows: Sequence[sqlite3.Row]) -> list[Numbered]:
        found = []
        streams = {}
        if sort == "records" and rows:
            streams = {int(row["number"]): StreamId(row["name"]) for row in self._run("SELECT * FROM streams", ())}
        for row in rows:
            number, session = int(row[NUMBERED[sort]]), SessionId(row["session"])
            if sort == "predictions":
                found.append(Numbered(number, number, session, prediction_of(row)))
            elif sort == "alarms":
                found.append(Numbered(number, int(row["id"]), session, alarm_of(row)))
            else:
                stream, time_ns = streams[stream_number_of(row["id"])], int(row["time_ns"])
                record = None
                try:
                    content = self._sealer.open_row(row["sealed"], record_place(stream, session, time_ns))
                    record = decode_record(content, stream, time_ns)
                except (StoreError, MalformedError):
                    self.unreadable += 1
                found.append(Numbered(number, int(row["id"]), session, record))
        return found
