"""How far the wall clock is believed: a wrong moment moves nothing, and a clock that stays is believed in the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.agent.trusted_time import JUMP_NS, STEADY_FAR_S, STEADY_S, YEAR_NS, TrustedTime

S = 1_000_000_000
HOUR = 3_600 * S
DAY = 24 * HOUR
T0 = 1_700_000_000 * S
OFF_NS = st.integers(-60 * YEAR_NS, 200 * YEAR_NS) | st.integers(-2 * JUMP_NS, 2 * JUMP_NS)


class Run:
    """A run of a device whose true time is known."""

    def __init__(self, known_ns: int | None = T0, off_ns: int = 0) -> None:
        self.at_s = 1_000.0
        self.off_ns = off_ns
        self.rule = TrustedTime(known_ns, T0 + off_ns, self.at_s)

    @property
    def true_ns(self) -> int:
        return T0 + round((self.at_s - 1_000.0) * S)

    def go(self, seconds: float, step_s: float = 60.0) -> None:
        until_s = self.at_s + seconds
        while self.at_s < until_s:
            self.at_s = min(until_s, self.at_s + step_s)
            self.look()

    def look(self) -> None:
        self.rule.look(self.true_ns + self.off_ns, self.at_s)


def test_a_clock_in_2200_for_30_seconds_moves_nothing() -> None:
    run = Run()
    run.go(600)
    assert (run.rule.known, run.rule.jumped, run.rule.now_ns) == (True, False, run.true_ns)
    run.off_ns = 174 * YEAR_NS
    run.go(30, 1.0)
    assert (run.rule.jumped, run.rule.far, run.rule.now_ns) == (True, True, run.true_ns)
    run.off_ns = 0
    run.go(1)
    assert (run.rule.jumped, run.rule.now_ns) == (False, run.true_ns)


@pytest.mark.parametrize(("off_ns", "steady_s"), [(30 * DAY, STEADY_S), (56 * YEAR_NS, STEADY_FAR_S)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_jump_is_believed_after_an_hour_and_one_by_years_after_a_day(off_ns, steady_s, sign) -> None:
    run = Run()
    run.go(600)
    run.off_ns = sign * off_ns
    run.look()
    run.go(steady_s - 60)
    assert run.rule.jumped
    assert run.rule.wait_s == pytest.approx(60)
    run.go(60)
    assert not run.rule.jumped
    assert run.rule.now_ns == run.true_ns + run.off_ns


def test_a_device_without_a_clock_starts_in_the_past_and_expires_by_what_the_time_server_says() -> None:
    run = Run(known_ns=T0 - 9 * DAY, off_ns=-9 * DAY)  # the clock of its last shutdown
    run.go(120)
    assert not run.rule.jumped
    run.off_ns = 0
    run.go(1)
    assert run.rule.now_ns == run.true_ns - 9 * DAY
    run.go(STEADY_S + 60)
    assert run.rule.now_ns == run.true_ns


def test_after_a_night_off_the_clock_is_believed_at_once_and_after_weeks_in_an_hour() -> None:
    assert TrustedTime(T0, T0 + DAY, 0.0).now_ns == T0 + DAY
    run = Run(known_ns=T0 - 21 * DAY)
    run.go(60)
    assert run.rule.now_ns == run.true_ns - 21 * DAY
    run.go(STEADY_S)
    assert run.rule.now_ns == run.true_ns


def test_without_a_note_nothing_is_known_for_an_hour() -> None:
    run = Run(known_ns=None)
    run.go(STEADY_S - 60)
    assert not run.rule.known
    run.go(60)
    assert (run.rule.known, run.rule.jumped) == (True, False)


def test_in_the_first_run_a_clock_that_was_never_set_is_left_at_once() -> None:
    run = Run(known_ns=None, off_ns=-T0)
    run.go(60)
    run.off_ns = 0
    run.go(1)
    assert (run.rule.known, run.rule.jumped, run.rule.far, run.rule.now_ns) == (False, False, False, run.true_ns)
    run.off_ns = 174 * YEAR_NS
    run.go(1)
    assert run.rule.far


def test_a_clock_that_stands_still_is_not_steady() -> None:
    run = Run()
    run.off_ns = 30 * DAY
    run.look()
    for _ in range(200):
        run.off_ns -= 60 * S
        run.go(60)
    assert run.rule.now_ns == run.true_ns


@given(st.lists(st.tuples(OFF_NS, st.floats(1, STEADY_S - 200)), max_size=12))
def test_wrong_moments_move_the_trusted_time_by_no_more_than_a_jump(moments) -> None:
    run = Run()
    for off_ns, seconds in moments:
        run.off_ns = off_ns
        run.look()
        assert run.rule.now_ns <= run.true_ns + off_ns
        run.go(seconds, 120.0)
        assert run.rule.now_ns <= run.true_ns + JUMP_NS
        run.off_ns = 0 if abs(off_ns) > JUMP_NS else 2 * YEAR_NS
        run.go(1)
        assert run.rule.now_ns <= run.true_ns + JUMP_NS


@given(st.none() | OFF_NS.map(lambda off_ns: T0 + off_ns), st.lists(OFF_NS, max_size=5), OFF_NS)
def test_a_clock_that_stays_is_believed_after_a_day(known_ns, before, off_ns) -> None:
    run = Run(known_ns)
    for run.off_ns in (*before, off_ns):
        run.look()
        run.go(90, 90.0)
    run.go(STEADY_FAR_S, 900.0)
    assert (run.rule.known, run.rule.jumped) == (True, False)
    assert abs(run.rule.latest_ns - run.true_ns - off_ns) <= JUMP_NS
