"""A day of mixed traffic in minutes: every reading that went in is stored, counted as dropped, or in quarantine.

`BEDSIDE_HOURS=24` runs the whole day; without it, an hour of it.
"""

from __future__ import annotations

import os
import shutil
import time

import pytest

from traffic.belts import BeltFeeder
from traffic.boards import IioFeeder, IvyFeeder, SerialFeeder
from traffic.day import account, run_day
from traffic.feeder import Feeder
from traffic.files import CsvFeeder, SqlFeeder
from traffic.messages import MllpFeeder, MqttFeeder

HOURS = float(os.environ.get("BEDSIDE_HOURS", "1"))
FEEDERS: tuple[type[Feeder], ...] = (
    *(CsvFeeder, SqlFeeder, MqttFeeder, MllpFeeder),
    *(SerialFeeder, IvyFeeder, IioFeeder, BeltFeeder),
)
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


@pytest.mark.system
@pytest.mark.timeout(3_600)
async def test_what_goes_in_is_stored_dropped_and_counted_or_in_quarantine(tmp_path) -> None:
    here = [kind for kind in FEEDERS if not kind.needs or shutil.which(kind.needs, path=PATH)]
    for kind in set(FEEDERS) - set(here):
        print(f"{kind.kind} is left out: there is no {kind.needs}")
    began_s = time.monotonic()
    settled = await run_day(tmp_path, here, round(HOURS * 60))
    took_s = time.monotonic() - began_s
    print(f"\n{HOURS:g} hours of mixed traffic in {took_s:.0f} s, in readings and samples:\n{account(settled)}")
    for one in settled:
        assert one.exact, one
        assert one.quarantined == one.expected, one
        assert one.dropped == one.lost, one
        assert one.stored > 0, one
