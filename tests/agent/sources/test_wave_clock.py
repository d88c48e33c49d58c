"""Stretches of a waveform on one time line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bedside.agent.sources.mqtt.wave_clock import Placed, WaveClock
from bedside.ondevice.windows.part import offset_ns

T0, MS = 1_790_000_000_000_000_000, 1_000_000


def test_jitter_does_not_show() -> None:
    clock = WaveClock(0)
    placed = [
        clock.place(T0 + number * 100 * MS + jitter * MS, 25, 250.0) for number, jitter in enumerate((0, 3, -7, 20))
    ]
    assert placed == [Placed(T0 + number * 100 * MS, 0, False) for number in range(4)]


def test_a_stretch_that_is_missing_is_a_gap() -> None:
    clock = WaveClock(0)
    clock.place(T0, 25, 250.0)
    assert clock.place(T0 + 200 * MS, 25, 250.0) == Placed(T0 + 200 * MS, 0, True)


def test_what_comes_again_is_passed_over_whole_and_what_overlaps_in_part() -> None:
    clock = WaveClock(T0)
    first = clock.place(T0, 25, 250.0)
    assert first == Placed(T0, 0, False)
    assert clock.place(T0, 25, 250.0).skip == 25
    assert WaveClock(T0 + 100 * MS).place(T0, 25, 250.0).skip == 25, "also in another process"
    half = clock.place(T0 + 48 * MS, 25, 250.0)
    assert half == Placed(T0 + 100 * MS, 13, False)
    assert clock.place(T0 + 148 * MS, 25, 250.0) == Placed(T0 + 148 * MS, 0, False)


@given(
    st.lists(st.tuples(st.integers(-300, 300), st.integers(1, 80)), max_size=30),
    st.sampled_from([0.5, 50.0, 128.0, 250.0, 360.0, 44_100.0]),
)
def test_time_never_goes_back_and_no_sample_is_placed_twice(steps: list[tuple[int, int]], rate_hz: float) -> None:
    clock, end_ns, now_ns = WaveClock(0), 0, T0
    for moved_ms, samples in steps:
        now_ns += moved_ms * MS
        placed = clock.place(now_ns, samples, rate_hz)
        assert 0 <= placed.skip <= samples
        if placed.skip < samples:
            assert placed.start_ns >= end_ns
            end_ns = placed.start_ns + offset_ns(samples - placed.skip, rate_hz)
