"""The parsers of tables and of files of signals that a hospital hands over."""

from __future__ import annotations

from collections.abc import Callable

from forms import json
from registry import NOW_S, add
from seeds import text

from bedside.core.errors import MalformedError
from bedside.core.samples import Quality


def _tables() -> None:
    from bedside.agent.formats.tables.delimited import Dialect, split_row
    from bedside.agent.formats.tables.lines import Lines
    from bedside.agent.formats.tables.row_time import RowTime
    from bedside.agent.sources.csv.rows import CsvOptions, CsvRows, lines_of
    from bedside.core.vocabulary.normaliser import FieldRule

    fields = {"heart_rate": FieldRule(code="hr", sent_unit="/min"), "spo2": FieldRule(sent_unit="%")}
    records = CsvOptions(name="v", stream="v", path="v", mode="tail", decimal=",", delimiter=";", fields=fields)
    wave = CsvOptions(
        name="w", stream="w", path="w", mode="tail", time_format="ms", rate_hz=250.0, columns=("2", "3"), header=False,
        time_column="1", encoding="latin-1",
    )  # fmt: skip

    def read(options: CsvOptions) -> Callable[[bytes], object]:
        def parse(data: bytes) -> object:
            rows = CsvRows(options, Quality.GOOD, 0)
            rows.begin((b"time;hr;spo2",) if options.header else ())
            lines = Lines()
            whole = (line.data for line in [*lines.feed(data), *lines.finish()])
            made = [
                rows.events(row, row.time_ns, NOW_S * 10**9)
                for row in lines_of(rows, whole, NOW_S * 10**9)
                if not hasattr(row, "reason")
            ]
            return made, rows.flush()

        return parse

    add("csv-records", "agent.sources.csv.rows.CsvRows.read agent.formats.tables.lines.Lines.feed", read(records),
        [b"2026-01-02T03:04:05.5Z;60,5;97\r\n2026-01-02T03:04:06+01:00;;-999\n\"2026-01-02 03:04\";x;1\n"])  # fmt: skip
    add("csv-waveform", "agent.sources.csv.rows.CsvRows.events", read(wave),
        [b"1767000000000,1,-2.5\n1767000000004,nan,\n1767000000900,3,4\n1767000000000,5,6"])  # fmt: skip
    add("csv-row", "agent.formats.tables.delimited.split_row",
        lambda data: split_row(data, Dialect(";", ",", "cp1252")),
        [b'1;"a ""b"";c";', b"a;b;\xfc"])  # fmt: skip
    times = [RowTime(*form) for form in (("iso", "Europe/Berlin"), ("s", "UTC"), ("%d.%m.%Y %H:%M:%S", "UTC"))]

    def time(data: bytes) -> object:
        found = []
        for form in times:
            try:
                found.append(form.ns(text(data)))
            except MalformedError:
                continue
        return found

    add("row-time", "agent.formats.tables.row_time.RowTime.ns", time,
        [b"2026-03-29T02:30:00.123456789", b"1767000000.25", b"01.02.2026 03:04:05", b"20260102T030405Z"])  # fmt: skip


def _positions() -> None:
    from bedside.agent.sources.csv.tail import TailPlace
    from bedside.agent.sources.position import decode_position

    add("source-position", "agent.sources.position.decode_position", lambda data: decode_position(data, TailPlace),
        [b'{"path":"/v.csv","file":{"device":1,"inode":2,"offset":3,"before":"00"}}'], json)  # fmt: skip


def _signals() -> None:
    from bedside.agent.formats.edf_annotations import read_tals

    add("edf-annotations", "agent.formats.edf_annotations.read_tals", read_tals,
        [b"+0\x14\x14\0+1.5\x152\x14arousal\x14\0\0\0", b"-1\x14\x14\0+3\x14a\x14\xc3\xbc\x14\0"])  # fmt: skip


_tables()
_positions()
_signals()
