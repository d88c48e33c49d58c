"""What the local API's client returns that no table holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bedside.proto.v1 import local_pb2 as wire

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says about one window.

    Attributes:
        model: its name.
        model_digest: of the parameters that decided, 32 bytes.
        label: the most probable class.
        probabilities: of every class, 0 to 1.
        latency_s: seconds that it took.
    """

    model: str
    model_digest: bytes
    label: str
    probabilities: Mapping[str, float]
    latency_s: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a prediction came out as it did.

    Attributes:
        prediction: its number.
        method: how it was found.
        effects: (segments, channels) float32: by how much the probability of the predicted class falls when that piece
            of that channel is covered. Positive speaks for the class, negative against it.
    """

    prediction: int
    method: str
    effects: Float32


def explanation_of(message: wire.Explanation) -> Explanation:
    """An explanation from the wire."""
    effects = np.array(message.effect_e6, np.float32).reshape(message.segments, message.channels) / np.float32(1e6)
    return Explanation(message.prediction_id, message.method, effects)
