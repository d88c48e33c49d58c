"""The trusted time as the device notes it, and what it refuses under a clock that cannot be right."""

from __future__ import annotations

import pytest

from bedside.agent.device_time import FILE_NAME, DeviceTime
from bedside.core.errors import RefusedError

S = 1_000_000_000
DAY = 86_400 * S
T0 = 1_700_000_000 * S


class HandClock:
    def __init__(self) -> None:
        self.at_s = 0.0
        self.off_ns = 0

    def now_ns(self) -> int:
        return T0 + round(self.at_s * S) + self.off_ns

    def monotonic_s(self) -> float:
        return self.at_s


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def noted(tmp_path, clock) -> DeviceTime:
    """A device that has run for an hour, and noted the time."""
    device = DeviceTime(tmp_path, clock)
    assert device.expiry_ns() is None
    device.save_due()
    assert not (tmp_path / FILE_NAME).exists()
    clock.at_s = 3_600.0
    assert device.expiry_ns() == clock.now_ns()
    device.save_due()
    return device


def test_the_next_run_knows_the_time_of_the_last(noted, clock, tmp_path) -> None:
    assert DeviceTime(tmp_path, clock).expiry_ns() == clock.now_ns()
    clock.off_ns = 100 * 366 * DAY
    assert DeviceTime(tmp_path, clock).expiry_ns() == T0 + 3_600 * S


def test_it_is_noted_once_an_hour_and_not_while_the_clock_is_wrong(noted, clock, tmp_path) -> None:
    note = tmp_path / FILE_NAME
    before = note.read_bytes()
    clock.at_s += 3_500
    noted.expiry_ns()
    noted.save_due()
    assert note.read_bytes() == before
    clock.at_s += 200
    clock.off_ns = 30 * DAY
    noted.expiry_ns()
    noted.save_due()
    assert note.read_bytes() == before
    clock.off_ns = 0
    noted.expiry_ns()
    noted.save_due()
    assert note.read_bytes() != before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"trusted_ns": "x"}', b'{"trusted_ns": 1e99}', b"\xff"])
def test_a_damaged_note_is_none(clock, tmp_path, content) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert DeviceTime(tmp_path, clock).expiry_ns() is None


def test_a_jump_is_told_of_and_what_people_do_is_refused_where_it_is_by_years(noted, clock) -> None:
    assert noted.degraded == ""
    clock.off_ns = 3 * DAY
    assert noted.degraded.startswith(
        "the clock jumped by +3 d: nothing expires by it until it has been steady for 60 min"
    )
    assert noted.now_ns() == T0 + 3_600 * S
    clock.off_ns = 174 * 366 * DAY
    with pytest.raises(RefusedError) as refused:
        noted.now_ns()
    assert refused.value.code == "clock-implausible"
    clock.off_ns = 0
    assert noted.now_ns() == clock.now_ns()
    assert noted.degraded == ""


def test_stored_times_are_plausible_for_a_year_ahead_wherever_the_clock_starts(noted, clock, tmp_path) -> None:
    clock.off_ns = -50 * 366 * DAY
    assert DeviceTime(tmp_path, clock).plausible_until_ns() == T0 + 3_600 * S + 366 * DAY
