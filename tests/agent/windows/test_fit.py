"""What a model takes and what arrives, in the same words."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.preprocessing import Resample
from bedside.core.samples import Block
from bedside.ondevice.windows.fit import arrived, taken

SPEC = WindowSpec("wrist", 3, 50.0, 10, 10, (0.0,) * 3, (1.0,) * 3)


def test_what_a_model_takes_is_said() -> None:
    assert taken(SPEC) == "3 channels at 50 Hz"
    picked = msgspec.structs.replace(SPEC, pick=(8, 0, 1), resample=Resample(8, 8.0))
    assert taken(picked) == "9 channels or more at a rate that resamples to 50 Hz"
    assert taken(msgspec.structs.replace(SPEC, fields=("spo2", "pulse", "rate"))) == "records"


def test_what_arrives_is_said() -> None:
    assert arrived(Block("wrist", 0, 12.5, np.zeros((4, 1), np.int16))) == "1 channel at 12.5 Hz"
    endless = Block("wrist", 0, 50.0, np.zeros((4, 3), np.int16), scale=math.inf)
    assert arrived(endless) == "3 channels at 50 Hz, on a scale without an end"
