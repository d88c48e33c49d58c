"""Percentiles from buckets, against the sorted list."""

import math

from hypothesis import given
from hypothesis import strategies as st

from bedside.agent.inference.latency import Histogram

LATENCIES_S = st.lists(st.floats(1e-6, 3_000, allow_nan=False), min_size=1, max_size=300)


@given(LATENCIES_S, st.floats(0.01, 1.0))
def test_a_percentile_is_at_most_a_bucket_too_high_and_never_too_low(latencies_s, share) -> None:
    histogram = Histogram()
    for latency_s in latencies_s:
        histogram.add(latency_s)
    exact_us = sorted(latencies_s)[math.ceil(share * len(latencies_s)) - 1] * 1e6
    assert exact_us * 0.999999 <= histogram.quantile_us(share) <= math.ceil(exact_us * 2**0.25 * 1.000001)


@given(LATENCIES_S)
def test_the_largest_is_told_exactly_and_nothing_is_above_it(latencies_s) -> None:
    histogram = Histogram()
    for latency_s in latencies_s:
        histogram.add(latency_s)
    facts = histogram.facts("decide")
    assert facts.count == len(latencies_s)
    assert facts.max_us == math.ceil(max(latencies_s) * 1e6)
    assert facts.p50_us <= facts.p99_us <= facts.max_us


def test_what_is_outside_of_every_bucket_is_counted_too() -> None:
    histogram = Histogram()
    for latency_s in (-1.0, 0.0, 1e-9, 1e9):
        histogram.add(latency_s)
    assert histogram.facts("cut").count == 4
    assert Histogram().facts("cut").p99_us == 0
