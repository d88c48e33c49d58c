"""The buffer's content in the clear, as CSV or Parquet, for a person who may see it.

Rows come from the reader a page at a time, so that memory stays small however much there is; the file appears under
its name when it is complete.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol

import numpy as np

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Output, Session
from bedside.core.errors import ConfigError, ProtocolError, UnavailableError
from bedside.core.ids import SessionId, StreamId
from bedside.ondevice.windows.part import Part
from bedside.service.files import durable_file
from bedside.service.installation import how_to_install
from bedside.service.text import bounded, for_spreadsheet

What = Literal["signal", "records", "labels", "predictions", "summaries"]
SUFFIXES: Final = (".csv", ".parquet")

_PAGE_ROWS: Final = 4_096
_GROUP_ROWS: Final = 1 << 16
"""Of a Parquet file: so many rows are held in memory."""
_NS_PER_MS: Final = 1_000_000
_NS_PER_MINUTE: Final = 60 * 1_000_000_000
_LAST_NS: Final = (1 << 63) - 1
_NO_OUTPUT: Final = Output("", math.nan)
"""In the row of a classification; a model of several labels or a regression has a row for each of its outputs."""

Cell = str | int | float
Columns = dict[str, Sequence[Cell]]
"""A batch of rows: a sequence of equal length for each column."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What to export.

    Attributes:
        what: which kind of rows.
        stream: of which stream; empty = of all (not for signal).
        session: of which session; empty = of all.
        from_ns: first nanosecond.
        to_ns: first nanosecond after it; None = to the end.
    """

    what: What
    stream: str = ""
    session: str = ""
    from_ns: int = 0
    to_ns: int | None = None

    def covers(self, time_ns: int) -> bool:
        """Whether a time lies in it."""
        return self.from_ns <= time_ns < (_LAST_NS if self.to_ns is None else self.to_ns)


class _Writer(Protocol):
    def write(self, columns: Columns) -> None: ...

    def close(self) -> None: ...


def export(
    reader: BufferReader,
    selection: Selection,
    path: Path,
    advance: Callable[[float], None],
    begin: Callable[[], None] = lambda: None,
) -> int:
    """Write what is selected into `path`, durably and readable for its owner alone; return the number of rows.

    Args:
        reader: of the buffer.
        selection: what to write.
        path: ends with one of `SUFFIXES`.
        advance: told how many more sessions are done.
        begin: called before the first row is written.

    Raises:
        ConfigError: `export-form`.
        UnavailableError: `extra-missing`.
        ProtocolError: `nothing-found` when nothing is selected.
        StoreError: `file-write`, `store-read`. No file appears with any of them.
    """
    open_writer = _parquet_writer() if path.suffix == ".parquet" else _CsvWriter
    rows = 0
    with durable_file(path) as file:
        writer: _Writer | None = None
        names: list[str] = []
        for columns in _batches(reader, selection, advance):
            if writer is None:
                begin()
                names, writer = list(columns), open_writer(file)
            if list(columns) != names:
                raise ConfigError(
                    "export-form",
                    f"{selection.stream} has other channels or fields in between",
                    remedy="export it in several files, with --session or with --from and --to",
                )
            writer.write(columns)
            rows += len(next(iter(columns.values())))
        if writer is None:
            raise _nothing(reader, selection)
        writer.close()
    return rows


def _nothing(reader: BufferReader, selection: Selection) -> ProtocolError:
    """Which part of the selection leaves nothing."""
    stream, session = bounded(selection.stream, 64), bounded(selection.session, 32)
    wide = replace(selection, from_ns=0, to_ns=None)
    where = (f" of stream {stream}" if stream else "") + (f" in session {session}" if session else "")
    remedy = "`bedside agent db status DIRECTORY` says what there is"
    if not sessions_of(reader, wide):
        sentence = f"there is no session{where}" if session else f"nothing is stored{where}"
        return ProtocolError(
            "nothing-found", sentence, remedy="`bedside agent session list DIRECTORY` says what there is"
        )
    if next(_batches(reader, wide, lambda _sessions: None), None) is not None:
        return ProtocolError(
            "nothing-found", f"--from and --to leave no {selection.what}{where}", remedy="choose other times"
        )
    if selection.what == "summaries":
        remedy = "they are made when signal leaves the buffer, after raw_hours of agent.toml"
    return ProtocolError(
        "nothing-found",
        f"there {'is' if selection.what == 'signal' else 'are'} no {selection.what}{where}",
        remedy=remedy,
    )


def sessions_of(reader: BufferReader, selection: Selection) -> list[Session]:
    """The sessions that a selection touches."""
    return [
        session
        for session in reader.sessions(StreamId(selection.stream) if selection.stream else None)
        if (not selection.session or session.session == selection.session)
        and (selection.to_ns is None or session.opened_ns < selection.to_ns)
        and (session.closed_ns is None or session.closed_ns >= selection.from_ns)
    ]


def _batches(reader: BufferReader, selection: Selection, advance: Callable[[float], None]) -> Iterator[Columns]:
    for session in sessions_of(reader, selection):
        batches = _BATCHES[selection.what]
        yield from batches(reader, session, selection)
        advance(1)


def _signal(reader: BufferReader, session: Session, selection: Selection) -> Iterator[Columns]:
    for part in reader.parts(session.stream, session.session, selection.from_ns, selection.to_ns):
        times = _times(part)
        inside = (times >= selection.from_ns) & (times < (_LAST_NS if selection.to_ns is None else selection.to_ns))
        if not inside.any():
            continue
        physical = part.values[inside].astype(np.float64) * part.scale
        count = len(physical)
        yield {
            "time_ns": times[inside].tolist(),
            "stream": [part.stream] * count,
            "session": [part.session] * count,
            "unit": [part.unit] * count,
            **{f"channel_{number}": physical[:, number].tolist() for number in range(physical.shape[1])},
        }


def _times(part: Part) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Time of every sample, on the grid of `part.offset_ns`."""
    milli_hz = max(1, round(part.rate_hz * 1000))
    steps = np.arange(len(part.values), dtype=np.int64) * 1_000_000_000_000 // milli_hz
    times: np.ndarray[tuple[int], np.dtype[np.int64]] = part.start_ns + steps
    return times


def _records(reader: BufferReader, session: Session, selection: Selection) -> Iterator[Columns]:
    """One row for each field: records of one stream need not have the same fields."""
    yield from _in_batches(
        (
            {
                "time_ns": record.time_ns,
                "stream": record.stream,
                "session": session.session,
                "field": name,
                "value": value,
                "unit": record.units.get(name, ""),
            }
            for record in reader.records(session.stream, session.session, selection.from_ns, selection.to_ns)
            for name, value in record.values.items()
        )
    )


def _labels(reader: BufferReader, session: Session, selection: Selection) -> Iterator[Columns]:
    yield from _in_batches(
        {
            "start_ns": label.start_ns,
            "end_ns": label.end_ns,
            "stream": label.stream,
            "session": label.session,
            "label": label.label,
            "value": math.nan if label.value is None else label.value,
            "origin": label.origin,
            "withdrawn": int(label.withdrawn),
        }
        for label in reader.labels(session.session, withdrawn=True)
        if selection.covers(label.start_ns)
    )


def _predictions(reader: BufferReader, session: Session, selection: Selection) -> Iterator[Columns]:
    after = 0
    while found := reader.predictions(after, _PAGE_ROWS, session=SessionId(session.session)):
        after = found[-1].number
        yield from _in_batches(
            {
                "start_ns": one.start_ns,
                "end_ns": one.end_ns,
                "stream": one.stream,
                "session": one.session,
                "label": one.label,
                "confidence": one.confidence,
                "model": one.model.hex(),
                "model_name": one.model_name,
                "latency_s": one.latency_s,
                "output": output.name,
                "value": output.value,
                "unit": output.unit,
            }
            for one in found
            if selection.covers(one.start_ns)
            for output in one.outputs or (_NO_OUTPUT,)
        )


def _summaries(reader: BufferReader, session: Session, selection: Selection) -> Iterator[Columns]:
    yield from _in_batches(
        {
            "minute_ns": summary.minute * _NS_PER_MINUTE,
            "stream": summary.stream,
            "session": summary.session,
            "channel": channel.name,
            "unit": channel.unit,
            "count": channel.count,
            "mean": channel.mean,
            "minimum": channel.minimum,
            "maximum": channel.maximum,
            "deviation": channel.deviation,
            "gaps": summary.gaps,
        }
        for summary in reader.summaries(session.stream, session.session, selection.from_ns, selection.to_ns)
        for channel in summary.channels
    )


_BATCHES: Final = {
    "signal": _signal,
    "records": _records,
    "labels": _labels,
    "predictions": _predictions,
    "summaries": _summaries,
}


def _in_batches(rows: Iterator[dict[str, Cell]]) -> Iterator[Columns]:
    batch: list[dict[str, Cell]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _PAGE_ROWS:
            yield _columns(batch)
            batch = []
    if batch:
        yield _columns(batch)


def _columns(rows: list[dict[str, Cell]]) -> Columns:
    return {name: [row[name] for row in rows] for name in rows[0]}


class _CsvWriter:
    def __init__(self, file: BinaryIO) -> None:
        self._text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        self._csv = csv.writer(self._text)
        self._headed = False

    def write(self, columns: Columns) -> None:
        """Write rows, after the headings before the first."""
        if not self._headed:
            self._csv.writerow(columns)
            self._headed = True
        safe = [map(for_spreadsheet, cells) if isinstance(cells[0], str) else cells for cells in columns.values()]
        self._csv.writerows(zip(*safe, strict=True))

    def close(self) -> None:
        """Hand the file back, open, for its owner to make durable."""
        self._text.detach()


def _parquet_writer() -> Callable[[BinaryIO], _Writer]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "extra-missing",
            "Parquet needs the extra 'export' (pyarrow is not installed)",
            remedy=f"{how_to_install('bedside[export]')}; or name a .csv file",
        ) from error

    class ParquetWriter:
        def __init__(self, file: BinaryIO) -> None:
            self._file = file
            self._writer: parquet.ParquetWriter | None = None
            self._waiting: list[pyarrow.Table] = []

        def write(self, columns: Columns) -> None:
            self._waiting.append(pyarrow.table(columns))
            if sum(table.num_rows for table in self._waiting) >= _GROUP_ROWS:
                self._write_group()

        def close(self) -> None:
            self._write_group()
            if self._writer is not None:
                self._writer.close()

        def _write_group(self) -> None:
            if not self._waiting:
                return
            group = pyarrow.concat_tables(self._waiting)
            if self._writer is None:
                self._writer = parquet.ParquetWriter(self._file, group.schema, compression="zstd")
            self._writer.write_table(group)
            self._waiting.clear()

    return ParquetWriter
