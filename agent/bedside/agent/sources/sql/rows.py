"""Rows of a query into records: a column per field (wide), or code, value and unit in columns of their own (long)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Final

import msgspec

from bedside.agent.formats.tables.row_time import RowTime
from bedside.agent.sources.kind import SourceOptions, option
from bedside.agent.sources.options import TimeZone, codes_of
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.ids import StreamId
from bedside.core.samples import Event, Unmapped
from bedside.core.vocabulary.normaliser import FieldRule, Normaliser
from bedside.core.vocabulary.reading import Reading, Reason, shown

TableRow = Mapping[str, object]
_NOT_A_NUMBER: Final = "not a number"


class RowOptions(SourceOptions, frozen=True, kw_only=True):
    """How rows become records."""

    stream: Annotated[str, option("id of the stream; or stream_column")] = ""
    stream_column: Annotated[str, option("column that says whose row it is")] = ""
    places: Annotated[dict[str, str], option("stream of each value of stream_column")] = msgspec.field(
        default_factory=dict
    )
    time_column: Annotated[str, option("column of the time")] = "time"
    time_format: Annotated[str, option("iso, s, ms, us, ns, or a pattern such as %d.%m.%Y %H:%M:%S")] = "iso"
    time_zone: TimeZone = "UTC"
    fields: Annotated[dict[str, FieldRule], option("of the records; in the wide form code names the column")] = (
        msgspec.field(default_factory=dict)
    )
    code_column: Annotated[str, option("long form: column of the code")] = ""
    value_column: Annotated[str, option("long form: column of the value")] = "value"
    unit_column: Annotated[str, option("long form: column of the unit")] = ""
    system: Annotated[str, option("long form: coding system of the codes, for instance LN")] = ""

    def streams(self) -> tuple[str, ...]:
        """One, or those of the places."""
        return (self.stream,) if self.stream else tuple(dict.fromkeys(self.places.values()))

    def check_rows(self) -> None:
        """Refuse what maps nothing.

        Raises:
            ConfigError: `sql-options`.
        """
        rules = (
            (bool(self.stream) != bool(self.stream_column), "it has stream, or stream_column and places"),
            (bool(self.stream_column) == bool(self.places), "stream_column and places go together"),
            (
                len(set(self.places.values())) == len(self.places),
                "two of its places share a stream, which is of one bed",
            ),
            (bool(self.code_column or self.fields), "it has fields (wide form) or code_column (long form)"),
            (self.time_format != "relative_s", "a relative time has no place in a database"),
        )
        for holds, sentence in rules:
            if not holds:
                raise ConfigError("sql-options", f"source {self.name}: {sentence}", remedy="correct it in agent.toml")


class RowReader:
    """Turns the rows of one query into what a source yields."""

    def __init__(self, options: RowOptions) -> None:
        """Prepare.

        Raises:
            ConfigError: `time-format`, `time-zone`, or from the fields.
        """
        self._options = options
        self._time = RowTime(options.time_format, options.time_zone)
        self._normaliser = Normaliser(options.name, options.fields)
        self._columns = list(zip(codes_of(options.fields), options.fields.values(), strict=True))
        self._per_row = 1 if options.code_column else len(self._columns)

    def check_columns(self, columns: Sequence[str]) -> None:
        """Refuse a query without the columns that are configured.

        Raises:
            ConfigError: `sql-columns`.
        """
        its = self._options
        wanted = [its.time_column, its.stream_column]
        wanted += (
            [its.code_column, its.value_column, its.unit_column]
            if its.code_column
            else [column for column, _ in self._columns]
        )
        for name in wanted:
            if name and name not in columns:
                raise ConfigError(
                    "sql-columns",
                    f"source {its.name}: the query gives no column {shown(name)!r}",
                    remedy=f"its columns are {shown(', '.join(columns))}",
                )

    def events(self, rows: Sequence[TableRow], arrived_ns: int) -> Iterator[list[Event]]:
        """What rows become, in their order: one list for each record, or for each row that has no place.

        In the long form, rows of one stream and time are one record.
        """
        groups: dict[tuple[str, int, int], list[Reading] | Unmapped] = {}
        for number, row in enumerate(rows):
            place = self._place(row)
            if isinstance(place, Reason):
                groups["", 0, number] = self._refused(place, arrived_ns)
                continue
            alike = groups.setdefault((*place, -1 if self._options.code_column else number), [])
            assert isinstance(alike, list)  # noqa: S101 - a stream has a name
            alike += self._readings(row)
        for (stream, time_ns, _), readings in groups.items():
            if isinstance(readings, Unmapped):
                yield [readings]
                continue
            yield list[Event](self._normaliser.events(StreamId(stream), time_ns, readings, arrived_ns))

    def _place(self, row: TableRow) -> tuple[str, int] | Reason:
        """Stream and time of a row, or why it has none."""
        its = self._options
        stream = its.stream or its.places.get(str(row[its.stream_column]))
        if stream is None:
            return Reason.UNKNOWN_PLACE
        try:
            return stream, self._time.ns(row[its.time_column])
        except MalformedError:
            return Reason.BAD_TIME

    def _readings(self, row: TableRow) -> list[Reading]:
        its = self._options
        if not its.code_column:
            return [
                Reading(column, _value(row[column]), rule.system, channel=rule.channel)
                for column, rule in self._columns
            ]
        unit = row[its.unit_column] if its.unit_column else None
        code, unit_text = str(row[its.code_column]), "" if unit is None else str(unit)
        return [Reading(code, _value(row[its.value_column]), its.system, unit_text)]

    def _refused(self, reason: Reason, arrived_ns: int) -> Unmapped:
        column = self._options.time_column if reason is Reason.BAD_TIME else self._options.stream_column
        return Unmapped(self._options.name, reason, shown(column), arrived_ns, self._per_row)


def _value(value: object) -> float | str | None:
    """A database's value as a reading has it: what is neither number nor text is no number."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return _NOT_A_NUMBER
    try:
        return float(value)
    except OverflowError:
        return _NOT_A_NUMBER
