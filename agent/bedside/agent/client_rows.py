"""What the local API's client returns that no table holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bedside.agent.buffer.rows import Output
from bedside.proto.v1 import local_pb2 as wire

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says about one window.

    Attributes:
        model: its name.
        model_digest: of the parameters that decided, 32 bytes.
        label: the most probable class; see `Prediction` for other tasks.
        probabilities: of every class, 0 to 1; of a classification.
        latency_s: seconds that it took.
        outputs: of a model of several labels or of a regression.
    """

    model: str
    model_digest: bytes
    label: str
    probabilities: Mapping[str, float]
    latency_s: float
    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a prediction came out as it did.

    Attributes:
        prediction: its number.
        method: how it was found.
        effects: (segments, channels) float32: by how much the output falls when that piece of that channel is covered.
            Positive speaks for it, negative against it.
        output: the class, label or value that is explained.
        unit: of the effects; empty of a probability.
        fields: of a model of records, what its channels are called; empty of one of windows.
    """

    prediction: int
    method: str
    effects: Float32
    output: str = ""
    unit: str = ""
    fields: tuple[str, ...] = ()


def explanation_of(message: wire.Explanation) -> Explanation:
    """An explanation from the wire."""
    told = np.array(message.effect, np.float32) if message.unit else np.array(message.effect_e6, np.float32) / 1e6
    effects = told.astype(np.float32).reshape(message.segments, message.channels)
    return Explanation(
        message.prediction_id, message.method, effects, message.output, message.unit, tuple(message.fields)
    )
