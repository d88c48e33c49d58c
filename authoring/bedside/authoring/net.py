"""What every graph of a model is built from: the layers in their places, and what is learnt with them."""

from __future__ import annotations

from dataclasses import dataclass

from bedside.core.bundle.layers import Step
from bedside.core.bundle.manifest import Quantisation, quantisation_of
from bedside.core.bundle.parameters import TensorSpec, layer_tensors
from bedside.core.bundle.training import Task


@dataclass(frozen=True, slots=True)
class Net:
    """A model before it has parameters.

    Attributes:
        steps: the layers in their places.
        task: what the outputs are, and so the loss.
        weight_qmax: largest magnitude of an int8 weight.
        class_weights: of the loss, one per output; empty for ones.
    """

    steps: tuple[Step, ...]
    task: Task = "classification"
    weight_qmax: int = 63
    class_weights: tuple[float, ...] = ()

    @property
    def input_shape(self) -> tuple[int, int]:
        """(L, C) of one window."""
        length, channels = self.steps[0].before
        return length, channels

    @property
    def outputs(self) -> int:
        """Values that the net gives."""
        return self.steps[-1].after[0]

    @property
    def parameters(self) -> tuple[TensorSpec, ...]:
        """Every parameter, in the manifest's order."""
        return layer_tensors(self.steps)

    @property
    def quantisation(self) -> Quantisation:
        """How the parameters become int8."""
        return quantisation_of(self.steps, self.weight_qmax)
