"""Clocks of senders, and times that cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.vocabulary.clock_offset import FIRST_NS, MAX_AHEAD_NS, ClockAhead, ClockOffset, plausible_time

S = 1_000_000_000
DAY_NS = 86_400 * S
NOW = 1_800_000_000 * S


@given(st.integers(-DAY_NS, DAY_NS), st.lists(st.integers(0, 10 * S), min_size=1, max_size=30), st.data())
def test_the_least_delay_tells_the_offset(off_ns: int, delays: list[int], data: st.DataObject) -> None:
    delays.insert(data.draw(st.integers(0, len(delays))), 0)
    clock = ClockOffset()
    for n, delay in enumerate(delays):
        clock.observe(NOW + n * S, NOW + n * S + off_ns + delay)
    assert clock.offset_ns == off_ns
    assert clock.here_ns(NOW) == NOW + off_ns


def test_a_clock_that_is_set_is_believed_when_the_old_pairs_are_gone() -> None:
    clock = ClockOffset(pairs=3)
    for n in range(5):
        clock.observe(NOW + n * S, NOW + n * S - 3600 * S)
    assert clock.offset_ns == -3600 * S
    for n in range(5, 8):
        clock.observe(NOW + n * S, NOW + n * S + S)
    assert clock.offset_ns == S


def test_before_the_first_pair_nothing_is_added() -> None:
    assert ClockOffset().here_ns(NOW) == NOW
    with pytest.raises(ValueError, match="one pair"):
        ClockOffset(pairs=0)


@pytest.mark.parametrize(
    ("time_ns", "arrived_ns", "plausible"),
    [
        (NOW, NOW, True),
        (NOW - 400 * DAY_NS, NOW, True),
        (NOW + MAX_AHEAD_NS, NOW, True),
        (NOW + MAX_AHEAD_NS + 1, NOW, False),
        (FIRST_NS, NOW, True),
        (FIRST_NS - 1, NOW, False),
        (0, 0, False),
        (NOW, 5 * S, True),
    ],
)
def test_times_that_can_be(time_ns: int, arrived_ns: int, *, plausible: bool) -> None:
    assert plausible_time(time_ns, arrived_ns) is plausible


def test_one_time_that_cannot_be_is_not_believed_and_a_clock_that_stays_ahead_is() -> None:
    clock = ClockAhead()
    assert not clock.takes(NOW + DAY_NS, NOW)
    assert clock.takes(NOW + S, NOW + S)
    took = [clock.takes(NOW + 20 * 3600 * S + n * S, NOW + n * S) for n in range(2, 120)]
    assert took == [False] * 60 + [True] * 58
    assert clock.ns == 20 * 3600 * S
    assert not clock.takes(NOW + DAY_NS + 120 * S, NOW + 120 * S)  # another four hours ahead
    assert clock.takes(NOW + 121 * S, NOW + 121 * S)
    assert clock.ns == 0


def test_times_that_arrive_at_once_show_no_clock_and_a_clock_here_that_is_set_back_begins_anew() -> None:
    clock = ClockAhead()
    assert not any(clock.takes(NOW + DAY_NS + n * S, NOW) for n in range(1000))
    assert not clock.takes(NOW + DAY_NS, NOW - 3600 * S)
    assert not clock.takes(NOW + DAY_NS - 3541 * S, NOW - 3541 * S)
    assert clock.takes(NOW + DAY_NS - 3540 * S, NOW - 3540 * S)


def test_the_offset_of_a_sender_tells_whether_its_clock_stays_ahead() -> None:
    offset = ClockOffset()
    offset.observe(NOW + DAY_NS, NOW)
    assert offset.stays_ahead_ns == 0
    offset.observe(NOW + DAY_NS + 61 * S, NOW + 61 * S)
    assert offset.stays_ahead_ns == DAY_NS
