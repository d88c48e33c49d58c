"""A day of mixed traffic in minutes: every reading that went in is stored, counted as dropped, or in quarantine.

`BEDSIDE_HOURS=24` runs the whole day; without it, the first hours.
"""

from __future__ import annotations

import os

import pytest

from traffic.belts import BeltFeeder
from traffic.boards import IvyFeeder, SerialFeeder
from traffic.day import account, run_day
from traffic.files import CsvFeeder, SqlFeeder
from traffic.messages import MqttFeeder

HOURS = float(os.environ.get("BEDSIDE_HOURS", "1"))
FEEDERS = (CsvFeeder, SerialFeeder, IvyFeeder, BeltFeeder, SqlFeeder, MqttFeeder)


@pytest.mark.system
@pytest.mark.timeout(3_600)
async def test_what_goes_in_is_stored_dropped_and_counted_or_in_quarantine(tmp_path) -> None:
    settled = await run_day(tmp_path, FEEDERS, round(HOURS * 60))
    print(f"\n{HOURS:g} hours of mixed traffic, in readings and samples:\n{account(settled)}")
    for one in settled:
        assert one.exact, one
        assert one.quarantined == one.expected, one
        assert one.dropped == one.lost, one
        assert one.stored > 0, one
