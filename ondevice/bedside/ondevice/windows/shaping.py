"""The stages of one window: detrend, normalise, then the manifest's offset and scale.

Invariant: sums run sample by sample, so that a window has the same bits wherever it was cut.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.preprocessing import signal_channels

Float64 = npt.NDArray[np.float64]

_FLAT: Final = 1e-9
"""A standard deviation this small against the largest value is rounding, not signal."""


class Shaper:
    """Shapes the windows of one spec."""

    def __init__(self, spec: WindowSpec) -> None:
        self._signal = signal_channels(spec)
        self._detrend = spec.detrend
        self._zscore = spec.normalise == "zscore"
        self._offset = np.array(spec.offset, np.float64)
        self._scale = np.array(spec.scale, np.float64)
        ramp = np.arange(spec.length, dtype=np.float64) - (spec.length - 1) / 2
        self._ramp = ramp[:, np.newaxis]
        self._ramp_energy = max(float(_sum(self._ramp * self._ramp)[0]), 1.0)

    def level(self, signal: Float64) -> Float64:
        """Return (length, channels of the stream) as `detrend` and `normalise` leave it."""
        if self._detrend != "none":
            signal = signal - _sum(signal) / len(signal)
        if self._detrend == "linear":
            signal = signal - self._ramp * (_sum(self._ramp * signal) / self._ramp_energy)
        return _zscore(signal) if self._zscore else signal

    def given(self, window: Float64) -> npt.NDArray[np.float32]:
        """Return the model's input of a window (length, channels) that was cut elsewhere.

        What follows the channels of the stream, such as the interval before a beat, is taken as it stands.
        """
        return self.scale(self.level(window[:, : self._signal]), window[:, self._signal :])

    def scale(self, *channels: Float64) -> npt.NDArray[np.float32]:
        """Return the model's input (length, channels), float32, of channels side by side as `level` left them."""
        together = np.concatenate(channels, axis=1)
        scaled: npt.NDArray[np.float32] = ((together - self._offset) * self._scale).astype(np.float32)
        return scaled


def _zscore(signal: Float64) -> Float64:
    centred = signal - _sum(signal) / len(signal)
    deviation = np.sqrt(_sum(centred * centred) / len(signal))
    flat = deviation <= _FLAT * np.abs(signal).max(axis=0)
    scaled: Float64 = np.where(flat, 0.0, centred / np.where(flat, 1.0, deviation))
    return scaled


def _sum(signal: Float64) -> Float64:
    """Per channel, one sample after the other; numpy's own sum adds in an order that depends on the shape."""
    total: Float64 = np.add.accumulate(signal, axis=0)[-1]
    return total
