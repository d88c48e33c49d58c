"""Times of rows: a form that would lose a part of one is refused before anything is read."""

from __future__ import annotations

from datetime import datetime

import pytest

from bedside.agent.formats.tables.row_time import RowTime
from bedside.core.errors import ConfigError, MalformedError


@pytest.mark.parametrize(
    "pattern",
    [
        "%d.%m.%Y %H:%M:%S %Z",  # parsed by strptime, and dropped
        "%d.%m.%Y",
        "%H:%M:%S",
        "%d.%m. %H:%M",
        "%m/%d/%Y %I:%M:%S",
        "%d.%m.%Y %H",
        "%d.%m.%Y %H:%S",
        "%Y %H:%M",
        "%d.%m.%Y %H:%M %d",
        "%d.%m.%Y %H:%M %Q",
        "%d.%m.%Y %H:%M %",
        "%%Y",
    ],
)
def test_a_pattern_that_loses_a_part_of_a_time_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RowTime(pattern, "Europe/Berlin")
    assert caught.value.code == "time-format"


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("%d.%m.%Y %H:%M", "26.11.2026 15:04", "2026-11-26T15:04+01:00"),
        ("%d.%m.%y %H:%M:%S.%f", "26.11.26 15:04:05.25", "2026-11-26T15:04:05.25+01:00"),
        ("%m/%d/%Y %I:%M:%S %p", "11/26/2026 03:04:05 PM", "2026-11-26T15:04:05+01:00"),
        ("%Y-%m-%dT%H:%M:%S%z", "2026-11-26T15:04:05+0530", "2026-11-26T15:04:05+05:30"),
        ("%a, %d %b %Y %H:%M:%S", "Thu, 26 Nov 2026 15:04:05", "2026-11-26T15:04:05+01:00"),
        ("%Y%j%H%M", "20263301504", "2026-11-26T15:04+01:00"),
        ("100%% %G-W%V-%u %H:%M", "100% 2026-W48-4 15:04", "2026-11-26T15:04+01:00"),
        ("iso", "2026-11-26T15:04", "2026-11-26T15:04+01:00"),
        ("iso", "20261126T1504Z", "2026-11-26T15:04+00:00"),
        ("iso", "2026-W48-4T15:04:05.5", "2026-11-26T15:04:05.5+01:00"),
    ],
)
def test_a_whole_time_is_read(pattern: str, text: str, expected: str) -> None:
    at_ms = round(datetime.fromisoformat(expected).timestamp() * 1000)
    assert RowTime(pattern, "Europe/Berlin").ns(text) == at_ms * 1_000_000


@pytest.mark.parametrize("text", ["2026-11-26 01", "2026-11-26T01+01:00", "20261126T01", "2026-11-26", "2026-W48-4"])
def test_a_day_or_an_hour_is_no_time(text: str) -> None:
    with pytest.raises(MalformedError):
        RowTime("iso").ns(text)
