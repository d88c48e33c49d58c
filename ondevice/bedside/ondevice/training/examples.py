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
from bedside.ondevice.training.scoring import Truth, check_truth

Int64 = npt.NDArray[np.int64]


class Examples(Protocol):
    """Examples, numbered from 0. What they are labelled with is in memory; their windows may be elsewhere."""

    def __len__(self) -> int: ...

    @property
    def y(self) -> Truth:
        """What each one is labelled with."""
        ...

    def take(self, picked: Int64) -> tuple[Float32, Truth]:
        """Windows (N, L, C) normalised of these numbers, in their order, and what they are labelled with."""
        ...


@dataclass(frozen=True, slots=True)
class Windows:
    """Examples in memory: `x` (n, L, C) float32 normalised, and `y`, see `Truth`."""

    x: Float32
    y: Truth

    def __len__(self) -> int:
        return len(self.y)

    def take(self, picked: Int64) -> tuple[Float32, Truth]:
        """As `Examples.take`.

        Raises:
            MalformedError: `bad-examples`: there are not as many windows as labels.
        """
        if len(self.x) != len(self.y):
            raise unfit(f"{len(self.x)} windows and {len(self.y)} labels are no examples")
        return self.x[picked], self.y[picked]


def checked(manifest: Manifest, batch: tuple[Float32, Truth]) -> tuple[Float32, Truth]:
    """Return a batch that fits the model.

    Raises:
        MalformedError: `bad-examples`.
    """
    x, y = batch
    window = manifest.window
    if x.shape != (len(y), window.length, window.channels) or x.dtype != np.float32:
        raise unfit(f"windows {x.dtype}{x.shape} with {len(y)} labels do not fit the model")
    if not np.isfinite(x).all():
        raise unfit("a value is not finite")
    if fault := check_truth(manifest, y):
        raise unfit(fault)
    return batch


def unfit(sentence: str) -> MalformedError:
    """The error of examples that a model cannot take."""
    return MalformedError("bad-examples", sentence, remedy="check the window's stream and the labels' names")
