"""A day of mixed traffic: each reading that went in is stored, counted as dropped, or in the quarantine.

`BEDSIDE_HOURS=24` runs the whole day; without it, the first hours.
"""

from __future__ import annotations

import os

import pytest

from traffic.day import account, run_day
from traffic.files import CsvFeeder, SqlFeeder

HOURS = float(os.environ.get("BEDSIDE_HOURS", "1"))
FEEDERS = (CsvFeeder, SqlFeeder)


@pytest.mark.system
@pytest.mark.timeout(3_600)
async def test_what_goes_in_is_stored_dropped_and_counted_or_in_quarantine(tmp_path) -> None:
    settled = await run_day(tmp_path, FEEDERS, round(HOURS * 60))
    print(f"\n{HOURS:g} hours of mixed traffic, in readings and samples:\n{account(settled)}")
    for one in settled:
        assert one.exact, one
        assert one.quarantined == {reason: count for reason, count in one.expected.items() if count}, one
        assert one.stored > 0, one
