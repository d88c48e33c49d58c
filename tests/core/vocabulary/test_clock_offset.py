"""Clocks of senders, and times that cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.vocabulary.clock_offset import DAY_NS, FIRST_NS, ClockOffset, plausible_time

S = 1_000_000_000
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
        (NOW + DAY_NS, NOW, True),
        (NOW + DAY_NS + 1, NOW, False),
        (FIRST_NS, NOW, True),
        (FIRST_NS - 1, NOW, False),
        (0, 0, False),
        (NOW, 5 * S, True),
    ],
)
def test_times_that_can_be(time_ns: int, arrived_ns: int, *, plausible: bool) -> None:
    assert plausible_time(time_ns, arrived_ns) is plausible
