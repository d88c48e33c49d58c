"""CSV files: rows, times and numbers as they are said to be; played, and followed across restarts."""

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.config import SourceConfig
from bedside.agent.formats.tables.delimited import Dialect, number_in, split_row
from bedside.agent.formats.tables.row_time import RowTime
from bedside.agent.sources.csv.rows import CsvOptions
from bedside.agent.sources.csv.tail import CsvTail
from bedside.agent.sources.kind import SourceContext, SourceGauge
from bedside.agent.sources.registry import build_source, typed_source
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.samples import Block, Event, Mark, Quality, Record, Unmapped
from bedside.ondevice.windows.part import end_ns
from hand_clock import T0, HandClock

DATA = Path(os.environ.get("BEDSIDE_DATA", Path(__file__).parents[4] / "shared" / "data"))
BIDMC = DATA / "icu_waveforms" / "bidmc_01_Signals.csv"
FIELDS = {"heart_rate": {"code": "HR", "sent_unit": "/min"}, "spo2": {"code": "SpO2", "sent_unit": "%"}}


def options_of(**options: object) -> CsvOptions:
    its = {"stream": "bed-4", "path": "v.csv", **options}
    made = typed_source(SourceConfig(kind="csv", name="vitals", options=its))  # type: ignore[arg-type]
    assert isinstance(made, CsvOptions)
    return made


def context_of(folder: Path, last_end_ns: int = 0) -> SourceContext:
    return SourceContext(HandClock(), lambda stream: last_end_ns, folder, state_dir=folder / "state")


async def play(folder: Path, text: bytes, last_end_ns: int = 0, **options: object) -> list[Event]:
    (folder / "v.csv").write_bytes(text)
    source = build_source(
        "csv",
        options_of(mode="replay", speed=0.0, start_ns=T0, **options),
        context_of(folder, last_end_ns),
    )
    return [event async for event in source.events()]


class IdleError(Exception):
    """Nothing more is there."""


async def tail(folder: Path, last_end_ns: int = 0, **options: object) -> tuple[list[Event], SourceGauge]:
    """Follow until a few looks have brought nothing, as a process that ends then."""
    looks = 0

    async def sleep(delay_s: float) -> None:
        nonlocal looks
        looks += 1
        clock.at_s += delay_s
        if looks >= 6:
            raise IdleError

    context = context_of(folder, last_end_ns)
    clock = context.clock
    assert isinstance(clock, HandClock)
    clock.at_s = 1e5
    events: list[Event] = []
    source = CsvTail(options_of(mode="tail", **options), context, sleep)
    with suppress(IdleError):
        async for event in source.events():
            events.append(event)
    return events, context.gauge


def told(events: list[Event]) -> list[object]:
    """Records and what is left out, without what differs from run to run."""
    return [
        (event.time_ns, dict(event.values))
        if isinstance(event, Record)
        else (event.reason, event.what, event.count)
        if isinstance(event, Unmapped)
        else event
        for event in events
    ]


async def test_a_played_row_is_a_record_of_its_fields_at_its_distance(tmp_path) -> None:
    text = b"time,HR,name,SpO2\n0.0,60,Miller,97\n0.5,61,Miller,\n2,62,Miller,-999\n"
    events = await play(tmp_path, text, time_format="relative_s", fields=FIELDS)
    assert [event.time_ns - T0 for event in events if isinstance(event, Record)] == [0, 500_000_000, 2_000_000_000]
    first, second, third = (event for event in events if isinstance(event, Record))
    assert (first.values, first.units) == ({"heart_rate": 60.0, "spo2": 97.0}, {"heart_rate": "/min", "spo2": "%"})
    assert math.isnan(second.values["spo2"])
    assert math.isnan(third.values["spo2"])
    assert all(event.quality & Quality.SIMULATED for event in (first, second, third))


async def test_bad_rows_are_counted_with_a_reason_and_the_rest_goes_on(tmp_path) -> None:
    rows = [
        b"2023-11-14T22:13:20Z;60,5;97",
        b"yesterday;61;97",  # no time
        b"2023-11-14T22:13:21Z;60.5;97",  # the other decimal mark
        b"2023-11-14T22:13:22Z;60",  # a cell too few
        b'2023-11-14T22:13:22Z;"60;97',  # an open quote
        b"2023-11-14T22:13:22Z;\xff;97",  # no UTF-8
        b"2023-11-14T22:13:23Z;Miller;97",
        b"x" * 70_000,
        b"",
        b"2023-11-14T22:13:24Z;400000;97",
        b"2023-11-14T22:13:25Z;62;96",
    ]
    (tmp_path / "v.csv").write_bytes(b"time;HR;SpO2\r\n" + b"\r\n".join(rows) + b"\r\n")
    events, _ = await tail(tmp_path, delimiter=";", decimal=",", fields=FIELDS)
    assert told(events) == [
        (T0, {"heart_rate": 60.5, "spo2": 97.0}),
        ("bad-time", "row", 2),
        (T0 + 10**9, {"spo2": 97.0}),
        ("not-a-number", "HR", 1),
        ("bad-message", "row", 2),
        ("bad-message", "row", 2),
        ("bad-message", "row", 2),
        (T0 + 3 * 10**9, {"spo2": 97.0}),
        ("not-a-number", "HR", 1),
        ("bad-message", "row", 2),
        (T0 + 4 * 10**9, {"spo2": 97.0}),
        ("out-of-range", "HR", 1),
        (T0 + 5 * 10**9, {"heart_rate": 62.0, "spo2": 96.0}),
    ]
    values = sum(len(event.values) for event in events if isinstance(event, Record))
    left_out = sum(event.count for event in events if isinstance(event, Unmapped))
    assert values + left_out == 2 * 10  # every row that is not empty has two readings


async def test_a_row_is_delivered_once_across_restarts_and_rotation(tmp_path) -> None:
    path = tmp_path / "v.csv"

    def append(first: int, count: int) -> None:
        with path.open("ab") as file:
            file.write(b"".join(b"%d,%d\n" % (T0 // 10**9 + n, 60 + n) for n in range(first, first + count)))

    its = {"time_format": "s", "fields": {"heart_rate": {"code": "HR", "sent_unit": "/min"}}}
    seen: list[int] = []
    for turn in range(5):
        if turn in {0, 3}:
            if path.exists():
                path.rename(tmp_path / "v.csv.1")
            path.write_bytes(b"time,HR\n")
        append(turn * 3, 3)
        events, _ = await tail(tmp_path, **its)
        seen += [(event.time_ns - T0) // 10**9 for event in events if isinstance(event, Record)]
    assert seen == list(range(15))
    events, _ = await tail(tmp_path, **its)
    assert events == []


async def test_what_was_left_out_before_a_stored_row_is_not_counted_again(tmp_path) -> None:
    """The process was killed after its commit and before it wrote its position: the stretch is read again."""
    path, its = tmp_path / "v.csv", {"time_format": "s", "fields": FIELDS}
    second = T0 // 10**9
    path.write_bytes(b"time,HR,SpO2\n%d,60,97\n" % second)
    await tail(tmp_path, **its)
    with path.open("ab") as file:
        file.write(b"never,61,97\n%d,six,97\nnever,62,97\n%d,63,97\n" % (second + 1, second + 2))
    events, _ = await tail(tmp_path, (second + 1) * 10**9, **its)
    assert told(events) == [
        ((second + 1) * 10**9, {"spo2": 97.0}),  # the store knows it
        ("bad-time", "row", 2),  # behind the last stored row: nobody knows
        ((second + 2) * 10**9, {"heart_rate": 63.0, "spo2": 97.0}),
    ]


@pytest.mark.parametrize("mode", ["tail", "replay"])
async def test_a_backlog_waits_for_the_disk_before_the_buffer_would_drop_it(tmp_path, mode: str) -> None:
    (tmp_path / "v.csv").write_bytes(b"time,HR\n" + b"".join(b"%d,60\n" % (T0 // 10**9 + n) for n in range(30_000)))
    waiting, most = 0, 0

    async def durable(streams: object) -> None:
        nonlocal waiting
        del streams
        waiting = 0

    context = replace(context_of(tmp_path), durable=durable)
    its = {"time_format": "s", "fields": {"heart_rate": {"code": "HR", "sent_unit": "/min"}}}
    speed = {"speed": 0.0, "start_ns": T0} if mode == "replay" else {}
    source = build_source("csv", options_of(mode=mode, **its, **speed), context)
    events, seen = source.events(), 0
    while seen < 30_000:
        seen += isinstance(await anext(events), Record | Unmapped)  # type: ignore[call-overload]  # a generator
        waiting += 1
        most = max(most, waiting)
    await events.aclose()  # type: ignore[attr-defined]  # the same
    assert most < 15_000


async def test_a_followed_waveform_has_blocks_on_a_grid_flagged_gaps_and_no_sample_twice(tmp_path) -> None:
    rows = [(n * 4_000_000 + (n % 3) * 100_000, n) for n in [*range(100), *range(150, 220)]]  # 250 Hz, jitter, a gap
    rows.insert(60, (4 * 10**9 * 90_000, 7))  # a year ahead
    rows.insert(120, (0, 8))  # behind
    text = b"".join(b"%d,%d,\n" % (T0 + time_ns, value) for time_ns, value in rows)
    (tmp_path / "v.csv").write_bytes(b"t,II,V\n" + text)
    its = {"time_column": "t", "time_format": "ns", "rate_hz": 250.0, "columns": ["II", "V"], "unit": "mV"}
    events, gauge = await tail(tmp_path, **its)
    blocks = [event for event in events if isinstance(event, Block)]
    assert np.concatenate([block.values[:, 0] for block in blocks]).tolist() == [*range(100), *range(150, 220)]
    assert all(np.isnan(block.values[:, 1]).all() for block in blocks)  # a lead that is off is no zero
    assert [block.start_ns - T0 for block in blocks if block.quality & Quality.GAP_BEFORE] == [600_000_000]
    assert all(len(block.values) <= 10 for block in blocks)
    assert all(end_ns(a) == b.start_ns for a, b in pairwise(blocks) if not b.quality & Quality.GAP_BEFORE)
    assert told([event for event in events if isinstance(event, Unmapped)]) == [("bad-time", "row", 2)] * 2
    # Killed before it wrote its position, with 100 rows stored:
    (tmp_path / "state" / "positions" / "vitals.json").unlink()
    events, gauge = await tail(tmp_path, T0 + 100 * 4_000_000, **its)
    again = [event for event in events if isinstance(event, Block)]
    assert np.concatenate([block.values[:, 0] for block in again]).tolist() == list(range(150, 220))
    assert gauge.duplicates == 100


async def test_a_waveform_without_times_is_played_at_its_rate_with_labels(tmp_path) -> None:
    (tmp_path / "labels.csv").write_text("start_s,end_s,label\n0.1,0.2,artefact\n")
    text = b"".join(b"%d\n" % n for n in range(125))
    its = {"time_column": "", "rate_hz": 125.0, "columns": ["1"], "header": False, "labels": "labels.csv"}
    events = await play(tmp_path, text, missing=[7.0], **its)
    values = np.concatenate([event.values[:, 0] for event in events if isinstance(event, Block)])
    assert np.isnan(values[7])
    assert np.delete(values, 7).tolist() == [n for n in range(125) if n != 7]
    marks = [(e.label, e.start_ns - T0, e.end_ns - T0) for e in events if isinstance(e, Mark)]
    assert marks == [("artefact", 100_000_000, 200_000_000)]


async def test_a_looped_file_goes_on_as_its_rows_did(tmp_path) -> None:
    (tmp_path / "v.csv").write_bytes(b"time,HR\n5,60\n7,61\n")
    its = {"time_format": "relative_s", "fields": {"heart_rate": {"code": "HR", "sent_unit": "/min"}}}
    source = build_source(
        "csv", options_of(mode="replay", speed=0.0, loop=True, start_ns=T0, **its), context_of(tmp_path)
    )
    times: list[int] = []
    events = source.events()
    async for event in events:
        assert isinstance(event, Record)
        times.append((event.time_ns - T0) // 10**9)
        if len(times) == 5:
            break
    await events.aclose()  # type: ignore[attr-defined]  # every source is an async generator
    assert times == [0, 2, 4, 6, 8]


@pytest.mark.skipif(not BIDMC.is_file(), reason=f"no {BIDMC}")
async def test_a_recording_of_a_monitor_is_played_as_it_is(tmp_path) -> None:
    source = build_source(
        "csv",
        options_of(
            mode="replay", path=str(BIDMC), time_column="Time [s]", time_format="relative_s", rate_hz=125.0,
            columns=["PLETH", "II"], speed=0.0, start_ns=T0,
        ),
        context_of(tmp_path),
    )  # fmt: skip
    blocks = [event async for event in source.events() if isinstance(event, Block)]
    values = np.concatenate([block.values for block in blocks])
    known = np.loadtxt(BIDMC, delimiter=",", skiprows=1, usecols=(3, 6), dtype=np.float32)
    assert np.array_equal(values, known)
    assert not any(block.quality & Quality.GAP_BEFORE for block in blocks)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "tail", "fields": FIELDS, "rate_hz": 5.0, "columns": ["a"]}, "it has fields"),
        ({"mode": "tail", "columns": ["a"]}, "both rate_hz and columns"),
        ({"mode": "tail", "time_format": "relative_s", "fields": FIELDS}, "relative time"),
        ({"mode": "tail", "time_column": "", "rate_hz": 5.0, "columns": ["a"]}, "without a time_column"),
        ({"mode": "tail", "fields": FIELDS, "speed": 2.0}, "are for mode replay"),
        ({"mode": "tail", "fields": FIELDS, "header": False}, "columns have numbers"),
        ({"mode": "tail", "fields": FIELDS, "decimal": ","}, "cannot be the same"),
        ({"mode": "tail", "fields": FIELDS, "encoding": "utf-16"}, "contains ASCII"),
        ({"mode": "tail", "fields": FIELDS, "time_zone": "Europe/Nowhere"}, "no time zone"),
        ({"mode": "tail", "fields": FIELDS, "time_format": "when"}, "no format of time"),
        ({"mode": "replay", "fields": FIELDS}, "cannot be read"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, options: Mapping[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_source("csv", options_of(**options), context_of(tmp_path))


async def test_a_file_without_a_column_fails_and_shows_none_of_its_cells(tmp_path) -> None:
    with pytest.raises(ConfigError, match="0 columns 'HR'") as failed:
        await play(tmp_path, b"Miller,60\nMiller,61\n", time_column="", rate_hz=5.0, columns=["HR"])
    assert "Miller" not in failed.value.diagnostics()


@pytest.mark.parametrize(
    ("form", "zone", "text", "expected_ns"),
    [
        ("iso", "UTC", "2023-11-14T22:13:20.123456789Z", T0 + 123_456_789),
        ("iso", "Europe/Berlin", "2023-11-14 23:13:20", T0),
        ("iso", "Europe/Berlin", "2023-11-14T22:13:20+00:00", T0),
        ("%d.%m.%Y %H:%M:%S", "Europe/Berlin", "14.11.2023 23:13:20", T0),
        ("s", "UTC", "1700000000.000000001", T0 + 1),
        ("ms", "UTC", "1700000000000.5", T0 + 500_000),
        ("us", "UTC", "1700000000000000", T0),
        ("ns", "UTC", str(T0 + 7), T0 + 7),
        ("iso", "Europe/Berlin", "2023-10-29T02:30:00", None),  # twice that night
        ("iso", "Europe/Berlin", "2023-03-26T02:30:00", None),  # never that night
        ("iso", "UTC", "2023-11-14", None),
        ("s", "UTC", "1e9", None),
        ("s", "UTC", "1700000000,5", None),
        ("s", "UTC", "-5", None),
    ],
)
def test_a_time_is_read_exactly_or_refused(form: str, zone: str, text: str, expected_ns: int | None) -> None:
    if expected_ns is None:
        with pytest.raises(MalformedError):
            RowTime(form, zone).ns(text)
    else:
        assert RowTime(form, zone).ns(text) == expected_ns


def test_a_decimal_mark_is_said_and_never_guessed() -> None:
    assert [number_in(cell, ",") for cell in ("1,5", "1.5", "1.234,5", "-2", "1e3")] == [1.5, None, None, -2.0, 1000.0]
    assert [number_in(cell, ".") for cell in ("1.5", "1,5", "inf", "0x1", "")][:4] == [1.5, None, None, None]
    assert split_row(b'a;"b;c";', Dialect(";", ",")) == ["a", "b;c", ""]


async def test_a_damaged_position_is_told_and_nothing_is_delivered_twice(tmp_path) -> None:
    (tmp_path / "v.csv").write_bytes(b"time,HR,SpO2\n")
    (tmp_path / "state" / "positions").mkdir(parents=True)
    (tmp_path / "state" / "positions" / "vitals.json").write_bytes(b"{")
    source = CsvTail(options_of(mode="tail", fields=FIELDS), context_of(tmp_path))
    with pytest.raises(Exception, match="position-unreadable"):
        await anext(aiter(source.events()))
