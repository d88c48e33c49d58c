"""One parameter or buffer of a torch module, and the tensor of a layer list that has its values.

torch keeps (outputs, inputs, taps), a layer list (taps, inputs, outputs). A dense layer behind a flattening takes
channels by samples in torch, samples by channels here: its columns change places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np

from bedside.ondevice.runtimes import Float32

How = Literal["conv", "depthwise", "dense", "vector"]


@dataclass(frozen=True, slots=True)
class Carried:
    """Where a tensor's values are in torch.

    Attributes:
        name: in the layer list, such as `w0`.
        key: in the module's state, such as `block.conv.weight`; empty for a bias that torch does not have.
        how: which axes change places.
        flat: of a dense layer behind a flattening, the (channels, samples) that were flattened.
    """

    name: str
    key: str
    how: How = "vector"
    flat: tuple[int, int] | None = None

    def from_torch(self, array: Float32) -> Float32:
        """The tensor of the layer list."""
        match self.how:
            case "conv":
                return np.ascontiguousarray(array.transpose(2, 1, 0))
            case "depthwise":
                return np.ascontiguousarray(array[:, 0, :].T)
            case "dense":
                if self.flat is not None:
                    array = array.reshape(-1, *self.flat).transpose(0, 2, 1).reshape(len(array), -1)
                return np.ascontiguousarray(array.T)
            case "vector":
                return array
            case _:
                assert_never(self.how)

    def to_torch(self, array: Float32) -> Float32:
        """The parameter of the module."""
        match self.how:
            case "conv":
                return np.ascontiguousarray(array.transpose(2, 1, 0))
            case "depthwise":
                return np.ascontiguousarray(array.T[:, np.newaxis, :])
            case "dense":
                array = array.T
                if self.flat is not None:
                    array = array.reshape(-1, *self.flat[::-1]).transpose(0, 2, 1).reshape(len(array), -1)
                return np.ascontiguousarray(array)
            case "vector":
                return array
            case _:
                assert_never(self.how)
