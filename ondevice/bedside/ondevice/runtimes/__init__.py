"""What runs an inference graph. One file per runtime; each is imported only where it is used."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

RuntimeName = Literal["onnx", "litert"]
"""The modules of this package."""

Float32 = npt.NDArray[np.float32]


class Runtime(Protocol):
    """A model that is ready to predict. Not thread-safe.

    Attributes:
        name: which runtime it is.
    """

    name: RuntimeName

    def predict(self, x: Float32) -> Float32:
        """Return logits (N, classes) of windows `x` (N, L, C), both float32."""
