"""Times of samples that come without any."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bedside.agent.sources.nominal_time import MeasuredRate, NominalTime

S = 1_000_000_000


def test_jitter_of_arrivals_never_shows() -> None:
    time = NominalTime(50.0)
    arrivals = [100 * S, 100 * S + 300_000_000, 102 * S, 102 * S + 700_000_000]
    placed = [time.place(50, one) for one in arrivals]
    assert placed == [(99 * S, True), (100 * S, False), (101 * S, False), (102 * S, False)]


def test_what_comes_late_comes_after_a_gap() -> None:
    time = NominalTime(50.0)
    assert time.place(50, 100 * S) == (99 * S, True)
    assert time.place(50, 101 * S + 600_000_000) == (100 * S + 600_000_000, True)


def test_time_never_goes_back_and_says_how_far_it_is_ahead() -> None:
    time = NominalTime(50.0, 200 * S)
    assert time.place(50, 100 * S) == (200 * S, True)
    assert time.ahead_s == 101.0
    time.lose()
    assert time.place(50, 101 * S) == (201 * S, True)


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 3 * S)), max_size=40), st.sampled_from([50.0, 333.3]))
def test_runs_are_gap_free_and_nothing_overlaps(pieces: list[tuple[int, int]], rate_hz: float) -> None:
    time, arrived_ns, end_ns = NominalTime(rate_hz), 10**18, 0
    for samples, pause_ns in pieces:
        arrived_ns += pause_ns
        start_ns, gap = time.place(samples, arrived_ns)
        assert start_ns >= end_ns - 1  # both are rounded
        assert gap or start_ns - end_ns <= 1
        end_ns = start_ns + round(samples * S / rate_hz)


def test_the_rate_of_a_device_is_what_it_does_and_not_what_it_says() -> None:
    rate = MeasuredRate()
    measured = [rate.take(49, second * S) for second in range(100, 112)]
    assert measured == [0.0] * 10 + [49.0] * 2
    rate.begin()
    assert rate.take(49, 200 * S) == 0.0
