"""What a device trains on: examples that can be taken by number, wherever they lie.

Whoever trains draws the order, so that the same seed gives the same batches from memory and from a disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.manifest import Manifest
from bedside.core.errors import MalformedError
from bedside.ondevice.runtimes import Float32

Int64 = npt.NDArray[np.int64]


class Examples(Protocol):
    """Examples, numbered from 0. Their classes are in memory, eight bytes each; their windows may be elsewhere."""

    def __len__(self) -> int: ...

    @property
    def y(self) -> Int64:
        """Class of each one."""
        ...

    def take(self, picked: Int64) -> tuple[Float32, Int64]:
        """Windows (N, L, C) normalised and classes (N,) of these numbers, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Windows:
    """Examples in memory: `x` (n, L, C) float32 normalised, `y` (n,) int64 class indices."""

    x: Float32
    y: Int64

    def __len__(self) -> int:
        return len(self.y)

    def take(self, picked: Int64) -> tuple[Float32, Int64]:
        """As `Examples.take`.

        Raises:
            MalformedError: `bad-examples`: there are not as many windows as classes.
        """
        if len(self.x) != len(self.y):
            raise unfit(f"{len(self.x)} windows and {len(self.y)} classes are no examples")
        return self.x[picked], self.y[picked]


def checked(manifest: Manifest, batch: tuple[Float32, Int64]) -> tuple[Float32, Int64]:
    """Return a batch that fits the model.

    Raises:
        MalformedError: `bad-examples`.
    """
    x, y = batch
    window, classes = manifest.window, len(manifest.labels)
    shaped = x.shape == (len(y), window.length, window.channels) and y.ndim == 1
    if not shaped or x.dtype != np.float32 or y.dtype != np.int64:
        raise unfit(f"windows {x.dtype}{x.shape} with classes {y.dtype}{y.shape} do not fit the model")
    if len(y) and (y.min() < 0 or y.max() >= classes or not np.isfinite(x).all()):
        raise unfit("a class is unknown to the model, or a value is not finite")
    return batch


def unfit(sentence: str) -> MalformedError:
    """The error of examples that a model cannot take."""
    return MalformedError("bad-examples", sentence, remedy="check the window's stream and the labels' names")
