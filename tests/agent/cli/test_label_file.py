"""Files of labels: three ways to tell a time, every wrong line named, nothing but MalformedError from any bytes."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bedside.agent.buffer.rows import Label
from bedside.agent.cli.label_file import (
    MAX_FAULTS,
    MAX_FILE_BYTES,
    MAX_FILE_LABELS,
    WrongLinesError,
    parse_labels,
    read_labels,
)
from bedside.core.errors import ConfigError, MalformedError

T0_S = 1_772_352_000
NS = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse(text: str, name: str = "beats.csv", **given) -> list[Label]:
    return parse_labels(text.encode(), name, **({"stream": "ecg"} | given))


def times(label: Label) -> tuple[int, int]:
    return label.start_ns, label.end_ns


@pytest.mark.parametrize(
    "text",
    [
        "start,end,label\n2026-03-01T08:00:00Z,2026-03-01T08:00:00.5Z,af\n",
        "start,end,label\n2026-03-01 08:00:00,2026-03-01 09:00:00.5+01:00,af\n",
        f"label,end_s,start_s\naf,{T0_S}.5,{T0_S}\n",
        f"start_ns,end_ns,label\r\n{T0_S * NS},{T0_S * NS + NS // 2},af\r\n\r\n",
        f"\ufeffstart_s , end_s, label \n {T0_S},{T0_S}.5 , af ",
    ],
)
def test_a_time_is_told_in_three_ways(text) -> None:
    (label,) = parse(text)
    assert times(label) == (T0_S * NS, T0_S * NS + NS // 2)
    assert (label.stream, label.session, label.label, label.origin) == ("ecg", "", "af", "csv:beats.csv")


def test_nanoseconds_of_today_are_exact_in_seconds_too() -> None:
    assert parse("start_s,end_s,label\n1772352000.123456789,1772352000.123456790,x\n")[0].start_ns % 10 == 9


def test_a_line_names_its_own_stream_or_session_before_the_files() -> None:
    text = "start_s,end_s,label,stream,session\n1,2,a,,\n1,2,b,wrist,\n1,2,c,,00ff\n"
    found = [(one.stream, one.session) for one in parse(text, session="aa")]
    assert found == [("ecg", "aa"), ("wrist", "aa"), ("ecg", "00ff")]


def test_every_wrong_line_is_named_with_its_number() -> None:
    text = 'start_s,end_s,label\n1,2,fine\n2,1,back\n3,x,no time\n\n4,5\n6,7,"over\ntwo lines"\n8,9,\n'
    with pytest.raises(
        WrongLinesError, match=r"beats\.csv was not imported: 5 lines are wrong: 3, 4, 6, 8, 9"
    ) as error:
        parse(text)
    assert error.value.code == "bad-labels"
    assert [line for line, _ in error.value.faults] == [3, 4, 6, 8, 9]
    assert "'x' is not a number of seconds" in error.value.faults[1][1]


def test_nobody_reads_on_after_too_many_wrong_lines() -> None:
    with pytest.raises(WrongLinesError) as error:
        parse("start_s,end_s,label\n" + "2,1,x\n" * (MAX_FAULTS + 5))
    assert len(error.value.faults) == MAX_FAULTS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "start_s,end_s\n1,2\n",
        "start,end_s,label\n",
        "start,end,start_s,end_s,label\n",
        "start_s,end_s,label,lable\n",
        "start_s,end_s,label,label\n",
        'start_s,end_s,label\n1,2,"open',
        "start_s,end_s,label\n" + "1,2,x\n" * (MAX_FILE_LABELS + 1),
    ],
)
def test_a_file_of_another_form_is_refused_as_a_whole(text) -> None:
    with pytest.raises(MalformedError, match="was not imported") as error:
        parse(text)
    assert not isinstance(error.value, WrongLinesError)


def test_a_file_is_bounded() -> None:
    with pytest.raises(MalformedError, match="larger than"):
        parse_labels(b"\n" * (MAX_FILE_BYTES + 1), "x.csv")


@pytest.mark.parametrize("time", ["1e999999", "nan", "Infinity", "-1", "9999999999999", "1" * 190])
def test_a_time_that_no_clock_shows_is_refused_before_it_grows(time) -> None:
    with pytest.raises(WrongLinesError):
        parse(f"start_s,end_s,label\n{time},{time},x\n")


def test_a_file_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv cannot be read"):
        read_labels(tmp_path / "none.csv")


def test_the_origin_of_a_strangely_named_file_stays_within_its_bounds() -> None:
    (label,) = parse("start_s,end_s,label\n1,2,x\n", name="\x1b[2J" + "n" * 300)
    assert len(label.origin) <= 64
    assert "\x1b" not in label.origin


@given(st.integers(0, 7 * 10**15), st.integers(1, 10**12), st.integers(-12, 12))
def test_a_written_time_is_read_back(start_us, length_us, zone_h) -> None:
    zone = timezone(timedelta(hours=zone_h))
    start, end = (EPOCH + timedelta(microseconds=at) for at in (start_us, start_us + length_us))
    (label,) = parse(f"start,end,label\n{start.astimezone(zone).isoformat()},{end.isoformat()},x\n")
    assert times(label) == (start_us * 1000, (start_us + length_us) * 1000)


@given(st.binary(max_size=200))
@example(b"start_s,end_s,label\n\x00,\x00,x")
@example(b"start,end,label\n0001-01-01T00:00:00+23:59,9999-12-31T23:59:59-23:59,x")
def test_any_bytes_are_labels_or_malformed(data) -> None:
    for start in (b"", b"start_s,end_s,label\n", b"start,end,label,stream,session\n"):
        with suppress(MalformedError):
            parse_labels(start + data, "f.csv", stream="ecg")


def test_a_pipe_is_no_file_of_labels_and_is_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_labels(tmp_path / "pipe.csv")


def test_a_column_of_values_may_have_gaps() -> None:
    text = "start_s,end_s,label,value\n1,2,po2,11.25\n2,3,af,\n3,4,be,-1.5e-1\n4,5,ph,.5\n"
    assert [one.value for one in parse(text)] == [11.25, None, -0.15, 0.5]


@pytest.mark.parametrize("value", ["high", "nan", "inf", "1,5", "1_000", "0x10", "1e999", "--1"])
def test_a_value_that_is_no_number_is_a_wrong_line(value: str) -> None:
    with pytest.raises(WrongLinesError) as error:
        parse(f'start_s,end_s,label,value\n1,2,po2,"{value}"\n')
    assert [line for line, _ in error.value.faults] == [2]
