"""Signals that can be made again: what a reader finds is compared with what was made, sample by sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WAVE_RATE_HZ = 250.0
WAVE_CHANNELS = 8
MOTION_RATE_HZ = 50.0
MOTION_CHANNELS = 9
LEAD_RATE_HZ = 360.0
UNITS = {
    "heart_rate": "/min",
    "spo2": "%",
    "resp_rate": "/min",
    "nibp_sys": "mm[Hg]",
    "nibp_dia": "mm[Hg]",
    "nibp_mean": "mm[Hg]",
    "temp": "Cel",
    "etco2": "mm[Hg]",
}
"""The eight vital signs of a record and their UCUM codes."""

_TYPICAL = np.array([78.0, 97.0, 16.0, 122.0, 71.0, 88.0, 36.8, 38.0])


def wave(number: int, seconds: float) -> npt.NDArray[np.int16]:
    """Stream `number`: (samples, 8), a rhythm of 1.2 Hz under noise of three steps of the converter."""
    rng = np.random.default_rng([1, number])
    t = np.arange(round(WAVE_RATE_HZ * seconds)) / WAVE_RATE_HZ
    rhythm = 200 * np.sin(2 * np.pi * 1.2 * t)[:, None] * rng.uniform(0.5, 1.5, WAVE_CHANNELS)
    return (rhythm + rng.normal(0, 3, rhythm.shape)).astype(np.int16)


def motion(number: int, seconds: float) -> npt.NDArray[np.float32]:
    """(samples, 9) of a body that moves at two steps a second: g, rad/s, g."""
    rng = np.random.default_rng([2, number])
    t = np.arange(round(MOTION_RATE_HZ * seconds)) / MOTION_RATE_HZ
    return (np.sin(2 * np.pi * 2 * t)[:, None] * rng.uniform(0.1, 0.6, 9) + rng.normal(0, 0.1, (len(t), 9))).astype(
        np.float32
    )


def lead(number: int, seconds: float) -> npt.NDArray[np.float32]:
    """(samples, 1) of one ECG lead in millivolt at 360 Hz: R and T waves, intervals of 0.7 to 1.0 s, some noise."""
    rng = np.random.default_rng([3, number])
    t = np.arange(round(LEAD_RATE_HZ * seconds)) / LEAD_RATE_HZ
    values = rng.normal(0, 0.02, len(t))
    beat_s = 0.4
    while beat_s < seconds:
        values += 1.2 * np.exp(-(((t - beat_s) / 0.012) ** 2)) + 0.25 * np.exp(-(((t - beat_s - 0.28) / 0.05) ** 2))
        beat_s += rng.uniform(0.7, 1.0)
    return values.astype(np.float32)[:, None]


def vital_signs(number: int, second: int) -> dict[str, float]:
    """The record of stream `number` in its `second`."""
    rng = np.random.default_rng([4, number, second])
    values = np.round(_TYPICAL * rng.uniform(0.9, 1.1, len(_TYPICAL)), 1)
    return {name: float(value) for name, value in zip(UNITS, values, strict=True)}
