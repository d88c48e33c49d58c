"""Labels in a CSV file: a line each, with its time in seconds, nanoseconds or as ISO 8601.

    start,end,label,stream
    2026-03-01T08:00:00Z,2026-03-01T08:00:30Z,atrial fibrillation,bed-4-ecg

Columns: `start` and `end`, or `start_s` and `end_s` (seconds since 1970), or `start_ns` and `end_ns`; `label`; `value`,
a number, where something was measured; and, where they are not the same for the whole file, `stream` or `session`. A
time without a zone is UTC. Other columns are an error, so that a misspelt one is not overlooked. Every line that is
wrong is named with its number.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

from bedside.agent.buffer.labels import FROM_FILE, check_label
from bedside.agent.buffer.rows import Label
from bedside.core.errors import BedsideError, ConfigError, MalformedError
from bedside.core.ids import SessionId, StreamId
from bedside.core.limits import MAX_WIRE_INTEGER
from bedside.service.files import private_opener
from bedside.service.text import bounded

MAX_FILE_LABELS: Final = 16_384
MAX_FILE_BYTES: Final = 8 << 20
MAX_FIELD_CHARS: Final = 200
MAX_FAULTS: Final = 100
"""Wrong lines after which nobody looks further."""

MAX_SECONDS: Final = Decimal(MAX_WIRE_INTEGER // 1_000_000_000)
MAX_ORIGIN_CHARS: Final = 60
_NUMBER: Final = re.compile(r"\d{1,11}(\.\d{1,9})?", re.ASCII)
_VALUE: Final = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?", re.ASCII)
_REMEDY: Final = "correct the file; nothing of it was stored"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_OTHER_COLUMNS: Final = frozenset({"label", "value", "stream", "session"})


@dataclass(frozen=True, slots=True)
class LabelFile:
    """What a file says.

    Attributes:
        labels: the sound ones, by the number of their line.
        faults: (number of the line, what is wrong with it), of the first `MAX_FAULTS`; nothing was read after them.
    """

    labels: Mapping[int, Label]
    faults: Sequence[tuple[int, str]]


class WrongLinesError(MalformedError):
    """Lines of a file are wrong.

    Attributes:
        faults: (number of the line, what is wrong with it), of the first `MAX_FAULTS`.
    """

    def __init__(self, name: str, faults: Sequence[tuple[int, str]]) -> None:
        many = "a line is wrong" if len(faults) == 1 else f"{len(faults)} lines are wrong"
        lines = ", ".join(str(line) for line, _ in faults)
        super().__init__("bad-labels", f"{bounded(name, 60)} was not imported: {many}: {lines}", remedy=_REMEDY)
        self.faults = tuple(faults)


def read_labels(path: Path, *, stream: str = "", session: str = "") -> LabelFile:
    """Read a file of labels, the wrong lines too.

    Args:
        path: of the file, UTF-8.
        stream: for lines that name none.
        session: for lines that name none; empty = the one that covers the label.

    Raises:
        ConfigError: `labels-missing`.
        MalformedError: `bad-labels`, where it is not a line that is to blame.
    """
    try:
        with open(path, "rb", opener=private_opener) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError("labels-missing", f"{path} cannot be read: {error.strerror}", remedy="check it") from error
    return _survey(data, path.name, stream=stream, session=session)


def parse_labels(data: bytes, name: str, *, stream: str = "", session: str = "") -> list[Label]:
    """As `read_labels`, for the bytes of a file of that name, all of whose lines must be sound.

    Raises:
        MalformedError: `bad-labels`; `WrongLinesError` where lines are to blame.
    """
    read = _survey(data, name, stream=stream, session=session)
    if read.faults:
        raise WrongLinesError(name, read.faults)
    return list(read.labels.values())


def _survey(data: bytes, name: str, *, stream: str, session: str) -> LabelFile:
    origin = f"{FROM_FILE}{bounded(name, MAX_ORIGIN_CHARS)}"
    labels: dict[int, Label] = {}
    faults: list[tuple[int, str]] = []
    for line, row in _rows(data, name):
        try:
            labels[line] = _label(row, StreamId(stream), SessionId(session), origin)
        except BedsideError as error:
            faults.append((line, error.sentence))
        if len(faults) >= MAX_FAULTS:
            break
    return LabelFile(labels, faults)


def parse_moment(text: str) -> int:
    """Read a time that a person types: ISO 8601, or seconds since 1970; returns nanoseconds.

    Raises:
        MalformedError: `bad-label-time`.
    """
    return _seconds(text) if _NUMBER.fullmatch(text) else _moment(text)


def _rows(data: bytes, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of the file by number, as fields by column."""
    if len(data) > MAX_FILE_BYTES:
        raise _bad(name, f"it is larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = [column.strip() for column in next(reader, [])]
        _check_columns(columns, name)
        for count, fields in enumerate(filter(None, reader)):
            if count >= MAX_FILE_LABELS:
                raise _bad(name, f"it has more than {MAX_FILE_LABELS} labels: split it")
            # A line of another length has no columns to be looked for in, and `_label` says so.
            fits = len(fields) == len(columns) and all(len(field) <= MAX_FIELD_CHARS for field in fields)
            yield reader.line_num, dict(zip(columns, map(str.strip, fields), strict=True)) if fits else {}
    except UnicodeDecodeError as error:
        raise _bad(name, "it is not UTF-8 text") from error
    except csv.Error as error:
        raise _bad(name, f"it is no CSV: {error}") from error


def _check_columns(columns: list[str], name: str) -> None:
    kinds = [suffix for suffix in _TIMES if f"start{suffix}" in columns and f"end{suffix}" in columns]
    known = {*_OTHER_COLUMNS, *(f"{end}{suffix}" for suffix in kinds for end in ("start", "end"))}
    strange = [column for column in columns if column not in known]
    if len(kinds) != 1 or "label" not in columns or strange or len(set(columns)) != len(columns):
        shown = f" {', '.join(bounded(column, 20) for column in columns[:8])}" if any(columns) else " nothing"
        raise _bad(
            name, f"its first line must name start, end and label, and may name value, stream or session; it has{shown}"
        )


def _label(row: dict[str, str], stream: StreamId, session: SessionId, origin: str) -> Label:
    """One line. Raises MalformedError."""
    if not row:
        raise MalformedError("bad-label-line", "it has not as many fields as the first line, or one that is too long")
    suffix = next(suffix for suffix in _TIMES if f"start{suffix}" in row)
    read = _TIMES[suffix]
    label = Label(
        StreamId(row.get("stream") or stream),
        SessionId(row.get("session") or session),
        read(row[f"start{suffix}"]),
        read(row[f"end{suffix}"]),
        row["label"],
        origin,
        value=_value(row.get("value", "")),
    )
    check_label(label)
    return label


def _value(text: str) -> float | None:
    """A number, or nothing: a column of values may have gaps."""
    if not text:
        return None
    if not _VALUE.fullmatch(text):
        raise MalformedError("bad-label", f"{bounded(text, 40)!r} is not a value")
    return float(text)


def _seconds(text: str) -> int:
    try:
        seconds = Decimal(text)
    except InvalidOperation as error:
        raise _no_time(text, "a number of seconds") from error
    if not seconds.is_finite() or not -MAX_SECONDS <= seconds <= MAX_SECONDS:  # before it becomes an endless integer
        raise _no_time(text, "a time in seconds since 1970")
    return int(seconds.scaleb(9).to_integral_value())


def _nanoseconds(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise _no_time(text, "a whole number of nanoseconds")
    return int(text)


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // _MICROSECOND * 1000
    except (ValueError, OverflowError) as error:
        raise _no_time(text, "a time such as 2026-03-01T08:00:00Z") from error


def _no_time(text: str, what: str) -> MalformedError:
    return MalformedError("bad-label-time", f"{bounded(text, 40)!r} is not {what}")


def _bad(name: str, why: str) -> MalformedError:
    return MalformedError("bad-labels", f"{bounded(name, 60)} was not imported: {why}", remedy=_REMEDY)


_TIMES: Final[dict[str, Callable[[str], int]]] = {"": _moment, "_s": _seconds, "_ns": _nanoseconds}
"""How times are read, by the ending of their columns' names."""
