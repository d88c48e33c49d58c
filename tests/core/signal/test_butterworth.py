"""Filters designed without a library, beside scipy's."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.signal.butterworth import (
    butterworth,
    gain,
    group_delay,
    notch,
    pole_radius,
    settling_samples,
)

HALF_POWER = math.sqrt(0.5)


def gain_at(sections, hz: float, rate_hz: float) -> float:
    return gain(sections, 2 * math.pi * hz / rate_hz)


@settings(deadline=None, database=None, max_examples=200)
@given(st.integers(1, 8), st.floats(0.01, 0.4), st.floats(0.02, 0.45), st.sampled_from(["low", "high", "band"]))
def test_a_filter_halves_the_power_at_its_edges_and_is_stable(order, low, high, kind) -> None:
    rate_hz = 250.0
    if kind == "band" and high < low + 0.02:
        low, high = 0.5 * high, high
    edges = {"low": {"high_hz": high * rate_hz}, "high": {"low_hz": low * rate_hz}}
    chosen = edges.get(kind, {"low_hz": low * rate_hz, "high_hz": high * rate_hz})
    sections = butterworth(order, rate_hz, **chosen)
    for edge in chosen.values():
        assert gain_at(sections, edge, rate_hz) == pytest.approx(HALF_POWER, rel=1e-5)
    assert all(pole_radius(section) < 1 for section in sections)
    assert len(sections) == (order if kind == "band" else math.ceil(order / 2))


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("edges", [{"high_hz": 40.0}, {"low_hz": 0.5}, {"low_hz": 5.0, "high_hz": 18.0}])
def test_the_response_is_scipys(order, edges) -> None:
    signal = pytest.importorskip("scipy.signal", reason="scipy is not installed")
    sections = butterworth(order, 125.0, **edges)
    kind = {("high_hz",): "low", ("low_hz",): "high"}.get(tuple(edges), "band")
    corners = list(edges.values())
    peer = signal.butter(order, corners if len(corners) > 1 else corners[0], kind, fs=125.0, output="sos")
    angles, response = signal.sosfreqz(peer, 200)
    for angle, value in list(zip(angles, abs(response), strict=True))[1:]:
        assert gain(sections, angle) == pytest.approx(value, abs=1e-6)


def test_a_notch_removes_its_centre_and_leaves_the_rest() -> None:
    section = notch(50.0, 250.0, 30.0)
    assert gain_at([section], 50.0, 250.0) < 1e-9
    assert gain_at([section], 0.001, 250.0) == pytest.approx(1.0, abs=1e-6)
    assert gain_at([section], 50.0 * (1 + 0.5 / 30), 250.0) == pytest.approx(HALF_POWER, rel=0.02)


def test_a_pole_near_the_circle_takes_long_to_settle() -> None:
    slow, fast = butterworth(2, 125.0, low_hz=0.5), butterworth(2, 125.0, low_hz=5.0)
    assert 8 < settling_samples(slow) / settling_samples(fast) < 12
    with pytest.raises(ValueError, match="unit circle"):
        settling_samples([(1.0, 0.0, 0.0, -2.0, 1.0)])


def test_the_delay_of_a_pure_delay_is_known() -> None:
    assert group_delay([(0.0, 0.0, 1.0, 0.0, 0.0)], 0.3) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("order", "edges"),
    [
        (0, {"high_hz": 9.0}),
        (2, {}),
        (2, {"low_hz": 9.0, "high_hz": 9.0}),
        (2, {"high_hz": 62.5}),
        (2, {"low_hz": -1.0}),
    ],
)
def test_an_impossible_filter_is_refused(order, edges) -> None:
    with pytest.raises(ValueError, match=r"Hz|order"):
        butterworth(order, 125.0, **edges)
