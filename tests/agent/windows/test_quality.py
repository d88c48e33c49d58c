"""What is said of a stream's last minutes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bedside.agent.windows.quality import BUCKETS, QualityMonitor, StreamQuality, stability_index
from bedside.core.bundle.preprocessing import ChannelReference
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Quality

RATE_HZ = 250.0
T0 = 1_700_000_003_000_000_000
NORMAL = ChannelReference((-0.6745, 0.0, 0.6745), (0.25, 0.25, 0.25, 0.25), -6.0, 6.0)


def noise(seconds: float, channels: int = 2, seed: int = 1) -> np.ndarray:
    rows = round(seconds * RATE_HZ)
    return np.random.default_rng(seed).standard_normal((rows, channels)).astype(np.float32)


def feed(
    monitor: QualityMonitor, values: np.ndarray, at_s: float = 0.0, quality: Quality = Quality.GOOD, step: int = 10
):
    for first in range(0, len(values), step):
        start_ns = T0 + round((at_s + first / RATE_HZ) * 1e9)
        monitor.observe(Block(StreamId("ecg"), start_ns, RATE_HZ, values[first : first + step], quality=quality))
    return monitor.summary()


def test_a_sound_stream_has_nothing_against_it() -> None:
    found = feed(QualityMonitor([NORMAL, NORMAL]), noise(70))
    assert found.drift_psi == pytest.approx(0.0, abs=0.01)
    assert (found.missing, found.flat, found.saturated, found.out_of_range) == (0.0, 0.0, 0.0, 0.0)


def test_gaps_count_against_the_nominal_rate_and_pass_out_of_the_minutes() -> None:
    monitor = QualityMonitor()
    feed(monitor, noise(30))
    assert feed(monitor, noise(60), at_s=40.0).missing == pytest.approx(0.1, abs=1e-3)
    assert feed(monitor, noise(1), at_s=40.0 + 2_000.0).missing > 0.99
    assert feed(monitor, noise(BUCKETS * 10), at_s=2_041.0).missing == 0.0


def test_values_that_are_no_numbers_are_missing() -> None:
    values = noise(20)
    values[100:600, 0] = np.nan
    found = feed(QualityMonitor([NORMAL, NORMAL]), values)
    assert found.missing == pytest.approx(500 / 10_000)
    assert (found.out_of_range, found.flat) == (0.0, 0.0)


@pytest.mark.parametrize("step", [1, 10, 250, 5_000])
def test_a_line_is_flat_from_its_second_second_on_whatever_the_blocks(step) -> None:
    values = noise(20)
    values[1_000:2_251, 1] = 0.5
    assert feed(QualityMonitor(), values, step=step).flat == pytest.approx(1_000 / 10_000)
    values[1_100:2_250:200, 1] = 0.6
    assert feed(QualityMonitor(), values, step=step).flat == 0.0


def test_a_gap_ends_a_flat_line() -> None:
    monitor, still = QualityMonitor(), np.full((240, 1), 7, np.int16)
    for at_s in (0.0, 2.0, 4.0):
        found = feed(monitor, still, at_s=at_s)
    assert found.flat == 0.0


def test_the_limits_of_the_integers_and_the_sources_flag_are_saturation() -> None:
    values = np.arange(500, dtype=np.int16).reshape(-1, 1)
    values[100:110] = 32_767
    values[200:205] = -32_768
    assert feed(QualityMonitor(), values).saturated == pytest.approx(15 / 500)
    assert feed(QualityMonitor(), noise(2), quality=Quality.SATURATED).saturated == 1.0


def test_out_of_range_and_drift_are_measured_against_the_reference_in_physical_units() -> None:
    values = (noise(70) * 1_000).astype(np.int16)
    values[:350, 1] = 7_000
    monitor = QualityMonitor([NORMAL], pick=[1])
    for first in range(0, len(values), 10):
        monitor.observe(
            Block(StreamId("ecg"), T0 + first * 4_000_000, RATE_HZ, values[first : first + 10], scale=0.001)
        )
    found = monitor.summary()
    assert found.out_of_range == pytest.approx(350 / values.size)
    assert found.drift_psi is not None
    assert found.drift_psi < 0.05
    shifted = feed(QualityMonitor([NORMAL, NORMAL]), noise(70) + np.array([0.0, 1.0], np.float32))
    assert shifted.drift_psi is not None
    assert shifted.drift_psi > 0.25


def test_a_short_stream_and_one_without_reference_have_no_drift() -> None:
    assert feed(QualityMonitor([NORMAL, NORMAL]), noise(50)).drift_psi is None
    assert feed(QualityMonitor(), noise(70)).drift_psi is None
    assert feed(QualityMonitor([NORMAL] * 3), noise(70)).drift_psi is None


def test_the_index_is_that_of_the_definition() -> None:
    expected = 0.1 * np.log(0.6 / 0.5) - 0.1 * np.log(0.4 / 0.5)
    assert stability_index((0.5, 0.5), np.array([600, 400])) == pytest.approx(expected)
    assert np.isfinite(stability_index((0.5, 0.5), np.array([0, 10])))


def test_a_clock_that_is_set_back_begins_anew() -> None:
    monitor = QualityMonitor()
    feed(monitor, np.full((2_500, 1), 32_767, np.int16), at_s=10_000.0)
    assert feed(monitor, np.arange(2_500, dtype=np.int16).reshape(-1, 1)).saturated == 0.0


def test_the_message_has_the_shares_in_millionths() -> None:
    message = StreamQuality(0.25, 0.5, 0.0, 1.0, 0.1234).message()
    assert (message.missing_e6, message.flat_e6, message.out_of_range_e6) == (250_000, 500_000, 1_000_000)
    assert message.drift_psi_e3 == 123
    assert not StreamQuality(0, 0, 0, 0, None).message().HasField("drift_psi_e3")


@pytest.mark.parametrize("absent", [np.inf, -np.inf, np.nan])
def test_no_share_counts_what_is_no_number(absent) -> None:
    values = noise(20)
    values[:2_500] = absent
    found = feed(QualityMonitor([NORMAL, NORMAL]), values, quality=Quality.SATURATED)
    assert (found.missing, found.flat, found.saturated, found.out_of_range) == (0.5, 0.0, 1.0, 0.0)
    found = feed(QualityMonitor([NORMAL, NORMAL]), np.full_like(values, absent))
    assert (found.missing, found.flat, found.saturated, found.out_of_range) == (1.0, 0.0, 0.0, 0.0)


def test_a_flagged_value_at_the_limit_is_saturated_once() -> None:
    found = feed(QualityMonitor(), np.full((500, 1), 32_767, np.int16), quality=Quality.SATURATED)
    assert found.saturated == 1.0


def test_what_is_gathered_is_bounded_whatever_the_rate() -> None:
    monitor, held = QualityMonitor(), []
    values = np.zeros((40_000, 8), np.int16)
    for at in range(12):
        block = Block(StreamId("ecg"), T0 + at * 40_000, 1e9, values)
        monitor.observe(block)
        held.append(sys.getrefcount(block) > 2)
        del block
    assert not all(held)
