"""Rows of one CSV file into events: records by the fields of the configuration, or blocks of a waveform."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from bedside.agent.formats.tables.delimited import Dialect, number_in, split_row
from bedside.agent.formats.tables.row_time import RowTime
from bedside.agent.sources.csv.wave_rows import Placed, WaveRows
from bedside.agent.sources.kind import option
from bedside.agent.sources.options import TimeZone, codes_of
from bedside.agent.sources.recordings.replay import PlayOptions
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Event, Quality, Unmapped
from bedside.core.vocabulary.clock_offset import ClockAhead
from bedside.core.vocabulary.normaliser import FieldRule, Normaliser
from bedside.core.vocabulary.reading import Reading, Reason
from bedside.ondevice.windows.part import offset_ns

_MOST: Final = 3.4e38
"""What float32 holds."""
_NO_NUMBER: Final = "not a number"
_REASONS: Final = {"bad-time": Reason.BAD_TIME}


class CsvOptions(PlayOptions, frozen=True, kw_only=True):
    """A CSV file."""

    path: Annotated[str, option("the file")]
    mode: Annotated[Literal["replay", "tail"], option("replay plays it as if it were now, tail follows what is added")]
    time_column: Annotated[str, option("column of the time; empty: rows at rate_hz, replay only")] = "time"
    time_format: Annotated[str, option("iso, s, ms, us, ns, relative_s, or a pattern such as %d.%m.%Y %H:%M:%S")] = (
        "iso"
    )
    time_zone: TimeZone = "UTC"
    fields: Annotated[dict[str, FieldRule], option("of records: their fields; code names the column")] = msgspec.field(
        default_factory=dict
    )
    columns: Annotated[tuple[str, ...], option("of a waveform: its channels")] = ()
    rate_hz: Annotated[float, option("of a waveform: rows per second")] = 0.0
    unit: Annotated[str, option("of a waveform: UCUM code")] = "1"
    metric: Annotated[str, option("of a waveform: MDC reference id")] = ""
    scale: Annotated[float, option("of a waveform: physical value = value times scale")] = 1.0
    missing: Annotated[tuple[float, ...], option("of a waveform: values that mean no value")] = ()
    labels: Annotated[str, option("of a waveform, replay: .npz or CSV (start_s, end_s, label)")] = ""
    delimiter: Annotated[str, option("one character")] = ","
    decimal: Annotated[str, option("decimal mark, . or ,")] = "."
    encoding: Annotated[str, option("of the text")] = "utf-8"
    header: Annotated[bool, option("the first row names the columns; false: they are 1, 2, 3 ...")] = True
    skip_lines: Annotated[int, option("lines before the header")] = 0
    every_s: Annotated[float, option("tail: seconds between two looks")] = 0.5

    @property
    def head_lines(self) -> int:
        """Lines before the rows."""
        return self.skip_lines + self.header

    @property
    def played(self) -> bool:
        """Whether an option of replay is set."""
        return (self.speed, self.history_s, self.loop, self.start_ns, self.labels) != (1.0, 0.0, False, None, "")

    @property
    def dialect(self) -> Dialect:
        """How its rows are written."""
        return Dialect(self.delimiter, self.decimal, self.encoding)


class Row(NamedTuple):
    """One row and its time, on the file's own clock."""

    time_ns: int
    cells: list[str]


class CsvRows:
    """Reads the rows of files of one form.

    Attributes:
        per_row: readings, or samples, of a row: what is lost with one that cannot be read.
        period_ns: of the rows of a waveform, nanoseconds; 0 of records.
    """

    def __init__(self, options: CsvOptions, quality: Quality, known_until_ns: int) -> None:
        """Prepare.

        Args:
            options: of the source.
            quality: of everything.
            known_until_ns: end of what is stored, for a waveform.

        Raises:
            ConfigError: `time-format`, `time-zone`, or from the fields.
        """
        self._options = options
        self._dialect = options.dialect
        self._time = RowTime(options.time_format, options.time_zone, options.decimal)
        self._stream = StreamId(options.stream)
        self._quality = quality
        self._missing = frozenset(options.missing)
        self._wave: WaveRows | None = None
        if options.rate_hz:
            self._wave = WaveRows(
                self._stream,
                options.rate_hz,
                unit=options.unit,
                metric=options.metric,
                scale=options.scale,
                quality=quality,
                known_until_ns=known_until_ns,
            )
        self.period_ns = offset_ns(1, options.rate_hz) if options.rate_hz else 0
        self._normaliser = Normaliser(options.name, options.fields)
        names = options.columns if self._wave is not None else codes_of(options.fields)
        self._names = list(names)
        self.per_row = len(self._names)
        self._ahead = ClockAhead()
        self._width = 0
        self._time_at = -1
        self._at: list[int] = []
        self._rows = 0

    def begin(self, head: tuple[bytes, ...]) -> None:
        """Take the lines before the rows of another file.

        Raises:
            ConfigError: `csv-columns`: it lacks one that is configured.
        """
        self._rows = 0
        if not self._options.header:
            self._width = 0
            self._time_at, *self._at = (int(name) - 1 for name in (self._options.time_column or "0", *self._names))
            return
        try:
            line = head[-1].removeprefix(b"\xef\xbb\xbf") if len(head) == 1 else head[-1]
            header = split_row(line.removesuffix(b"\r"), self._dialect)
        except MalformedError as error:
            raise ConfigError(
                "csv-columns",
                f"source {self._options.name}: the header cannot be read: {error.sentence}",
                remedy="check delimiter, encoding and skip_lines",
            ) from error
        wanted = [name for name in (self._options.time_column, *self._names) if name]
        for name in wanted:
            if header.count(name) != 1:
                raise ConfigError(
                    "csv-columns",
                    f"source {self._options.name}: the file has {header.count(name)} columns {name!r}",
                    remedy="check the names, delimiter, skip_lines and whether there is a header",
                )
        self._width = len(header)
        self._time_at = header.index(self._options.time_column) if self._options.time_column else -1
        self._at = [header.index(name) for name in self._names]

    def read(self, line: bytes | None) -> Row | None:
        """Read a line; None for an empty one. None as a line is one that was too long.

        Raises:
            MalformedError: `bad-row`, `bad-time`.
        """
        if line is None:
            raise MalformedError("bad-row", "a line is too long")
        if not line.strip():
            return None
        cells = split_row(line, self._dialect)
        if (self._width and len(cells) != self._width) or len(cells) <= max(self._time_at, *self._at):
            raise MalformedError("bad-row", "a row has another number of cells")
        self._rows += 1
        if self._time_at < 0:
            return Row(offset_ns(self._rows - 1, self._options.rate_hz), cells)
        return Row(self._time.ns(cells[self._time_at]), cells)

    def refused(self, reason: Reason, arrived_ns: int) -> Unmapped:
        """What is left of a row that cannot be used."""
        return Unmapped(self._options.name, reason, "row", arrived_ns, self.per_row)

    def events(self, row: Row, time_ns: int, arrived_ns: int) -> tuple[list[Event], Placed]:
        """What a row becomes, and of a waveform whether it is known already.

        Args:
            row: from `read`.
            time_ns: of the row, on the clock of its stream.
            arrived_ns: now.
        """
        if self._wave is not None:
            return self._samples(self._wave, row, time_ns, arrived_ns)
        readings = [
            self._reading(name, rule, row.cells[at]) for (name, rule), at in zip(self._rules, self._at, strict=True)
        ]
        events = self._normaliser.events(self._stream, time_ns, readings, arrived_ns, self._quality)
        return list[Event](events), Placed.TAKEN

    def flush(self) -> list[Block]:
        """What waits for more rows."""
        return self._wave.blocks(flush=True) if self._wave is not None else []

    @property
    def _rules(self) -> list[tuple[str, FieldRule]]:
        return list(self._options.fields.items())

    def _reading(self, name: str, rule: FieldRule, cell: str) -> Reading:
        value = number_in(cell, self._dialect.decimal)
        return Reading(rule.code or name, _NO_NUMBER if value is None else value, rule.system, channel=rule.channel)

    def _samples(self, wave: WaveRows, row: Row, time_ns: int, arrived_ns: int) -> tuple[list[Event], Placed]:
        if not self._ahead.takes(time_ns, arrived_ns):  # one of next year would put all others behind it
            return [self.refused(Reason.BAD_TIME, arrived_ns)], Placed.TAKEN
        try:
            values = [self._sample(row.cells[at]) for at in self._at]
        except MalformedError:
            return [self.refused(Reason.NOT_A_NUMBER, arrived_ns)], Placed.TAKEN
        placed = wave.add(time_ns, values)
        if placed is Placed.LATE:
            return [self.refused(Reason.BAD_TIME, arrived_ns)], placed
        return list[Event](wave.blocks()), placed

    def _sample(self, cell: str) -> float:
        value = number_in(cell, self._dialect.decimal)
        if value is None or abs(value) > _MOST:
            raise MalformedError("bad-row", "a cell is not a number, or too large a one")
        return float("nan") if value in self._missing else value


def lines_of(rows: CsvRows, lines: Iterator[bytes | None], arrived_ns: int) -> Iterator[Row | Unmapped]:
    """Read lines: what becomes a row, and what does not."""
    for line in lines:
        try:
            row = rows.read(line)
        except MalformedError as error:
            yield rows.refused(_REASONS.get(error.code, Reason.BAD_MESSAGE), arrived_ns)
        else:
            if row is not None:
                yield row
