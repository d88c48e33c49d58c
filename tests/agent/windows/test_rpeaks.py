"""The R-peak detector, on made signals and on real records."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beat_matching import BeatScores, beat_scores, match_beats
from bedside.ondevice.windows.rpeaks import RPeakDetector
from wfdb_records import RECORDS, data_folder, read_record


def lead(beats_s: np.ndarray, rate_hz: float, seconds: float, heights: np.ndarray) -> np.ndarray:
    """R waves of 60 ms and tall T waves a quarter second later, on a wander with noise."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    values = 0.4 * np.sin(2 * np.pi * 0.3 * time_s) + np.random.default_rng(1).normal(0, 0.01, len(time_s))
    for beat_s, height in zip(beats_s, heights, strict=True):
        values += height * np.exp(-(((time_s - beat_s) / 0.012) ** 2))
        values += 0.9 * height * np.exp(-(((time_s - beat_s - 0.26) / 0.045) ** 2))
    return values


def regular(seconds: float) -> np.ndarray:
    return np.arange(0.5, seconds - 1.0, 0.8) + np.random.default_rng(2).normal(
        0, 0.02, len(np.arange(0.5, seconds - 1.0, 0.8))
    )


@pytest.mark.parametrize("rate_hz", [100.0, 125.0, 250.0, 360.0, 1_000.0])
def test_every_beat_is_found_once_and_no_t_wave_at_any_rate(rate_hz) -> None:
    beats_s = regular(60)
    found = RPeakDetector(rate_hz).push(lead(beats_s, rate_hz, 60, np.ones(len(beats_s))))
    assert len(found) == len(beats_s)
    np.testing.assert_allclose(np.array(found) / rate_hz, beats_s, atol=0.03)


def test_a_small_beat_is_found_by_looking_back() -> None:
    beats_s = regular(60)
    heights = np.ones(len(beats_s))
    heights[20] = 0.38  # its energy is a seventh: below the threshold, above half of it
    found = np.array(RPeakDetector(125.0).push(lead(beats_s, 125.0, 60, heights))) / 125.0
    assert np.abs(found - beats_s[20]).min() < 0.03
    assert len(found) == len(beats_s)


def test_beats_that_shrink_for_good_are_found_again_after_four_seconds() -> None:
    beats_s = regular(60)
    heights = np.where(beats_s < 30, 1.0, 0.15)
    found = np.array(RPeakDetector(125.0).push(lead(beats_s, 125.0, 60, heights))) / 125.0
    late = beats_s[beats_s > 38]
    assert len(match_beats(late, found)[0]) == (match_beats(late, found)[0] >= 0).sum()


@settings(deadline=None, database=None, max_examples=20)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=60))
def test_blocks_of_any_size_give_the_same_beats(lengths) -> None:
    beats_s = regular(60)
    heights = np.random.default_rng(3).uniform(0.2, 1.0, len(beats_s))
    values = lead(beats_s, 125.0, 60, heights)
    detector, found, at, horizons = RPeakDetector(125.0), list[int](), 0, list[int]()
    for length in (*lengths, len(values)):
        horizons.append(detector.horizon)
        new = detector.push(values[at : at + length]) if at < len(values) else []
        assert all(beat >= horizons[-1] for beat in new)
        found += new
        at += length
    assert found == RPeakDetector(125.0).push(values)
    assert found == sorted(set(found))


def test_a_flat_lead_has_no_beats() -> None:
    assert RPeakDetector(125.0).push(np.full(20_000, 3.0)) == []


def test_beats_of_real_records_are_found() -> None:
    folder = data_folder()
    if folder is None:
        pytest.skip("the MIT-BIH records are not here: set BEDSIDE_DATA")
    found = missed = extra = 0
    for name in RECORDS:
        record = read_record(folder, name)
        detected = RPeakDetector(record.rate_hz).push(record.values[:, 0] / record.per_mv)
        score = beat_scores(record, np.array(detected) / record.rate_hz)
        assert score.sensitivity > 0.985
        assert score.precision > 0.975
        found, missed, extra = found + score.found, missed + score.missed, extra + score.extra
    total = BeatScores(found, missed, extra)
    assert total.sensitivity > 0.997
    assert total.precision > 0.997
