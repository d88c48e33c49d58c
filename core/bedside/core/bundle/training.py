"""What a bundle says about training: its graphs, which layers each trains, and what that costs.

A graph is chosen by a plan through level, suffix and optimiser; that a device could choose would tell it from others.

Source: DESIGN section 6; Lin et al. 2022, "On-Device Training Under 256KB Memory" (sparse update by suffix).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from bedside.core.bundle.layers import Step
from bedside.core.bundle.parameters import AMAX, TensorSpec, layer_tensors, tensors_of

Level = Literal["Q0", "Q1", "Q2"]
"""Q0: float training, quantised afterwards. Q1: quantisation-aware training on a float master. Q2: weights live as
int8 on a fixed scale per channel, and are rounded stochastically after every step."""

Optimiser = Literal["sgd", "adam"]
"""sgd: with momentum, as torch.optim.SGD. adam: as torch.optim.Adam (Kingma and Ba 2015, with bias correction)."""

Task = Literal["classification", "multilabel", "regression"]
"""Softmax cross-entropy over exclusive classes; sigmoid cross-entropy per label; mean squared error per output."""

ALL: Final = "all"
HEAD: Final = "head"
_BASE_MB: Final = 60.0
"""A Python process with numpy and onnxruntime before it trains anything; the rest grows with the batch."""
GRAPH_PREFIX: Final = "train-"
GRAPH_SUFFIX: Final = ".onnx"

WINDOWS: Final = "x"
LOGITS: Final = "logits"
TARGETS: Final = "y"
LOSS: Final = "loss"
RATES: Final = ("lr", "momentum", "mu", "clip")
NEXT: Final = ".next"
START: Final = "start."
NOISE: Final = "noise"
SCALE: Final = ".scale"
"""Names of the inputs and outputs of graphs, and what is put before or behind those of parameters."""


class Suffix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The layers from `first_layer` (place in the list) to the end; those before it are not changed."""

    name: str
    first_layer: int


class TrainingGraph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to train, with a graph of its own."""

    level: Level
    suffix: str
    optimiser: Optimiser

    @property
    def key(self) -> str:
        """How tolerances, costs and golden vectors call it, such as `q1-all-sgd`."""
        return f"{self.level.lower()}-{self.suffix}-{self.optimiser}"

    @property
    def file(self) -> str:
        """Its file in the bundle."""
        return f"{GRAPH_PREFIX}{self.key}{GRAPH_SUFFIX}"


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Measured on the author's machine.

    Attributes:
        graph: key of the training graph.
        batch: examples per step.
        step_ms: median of one training step, milliseconds of one core.
        rss_mb: largest resident memory of the training process, megabytes, without its examples.
    """

    graph: str
    batch: int
    step_ms: float
    rss_mb: float


def expected_cost(rows: Sequence[Cost], batch: int) -> Cost | None:
    """What a step of another batch size than the measured ones takes: on the line through the two nearest of them.

    With one row, time is in proportion to the batch, and so is memory beyond a process that trains nothing.

    Args:
        rows: of one graph.
        batch: examples per step.

    Returns:
        None without a row.
    """
    if not rows:
        return None
    nearest = sorted(rows, key=lambda row: (abs(row.batch - batch), row.batch))[:2]
    if len(nearest) == 1:
        (one,) = nearest
        share = batch / max(1, one.batch)
        fixed_mb = min(_BASE_MB, one.rss_mb)
        return Cost(one.graph, batch, one.step_ms * share, fixed_mb + (one.rss_mb - fixed_mb) * share)
    low, high = sorted(nearest, key=lambda row: row.batch)
    share = (batch - low.batch) / (high.batch - low.batch)

    def on_line(begin: float, end: float) -> float:
        return max(begin + (end - begin) * share, min(begin, end) * min(1.0, batch / low.batch))

    return Cost(low.graph, batch, on_line(low.step_ms, high.step_ms), on_line(low.rss_mb, high.rss_mb))


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What training does to a window before each use; never to one that is predicted or evaluated.

    Attributes:
        noise: standard deviation of Gaussian noise, in units of the model's input.
        scale: each channel is multiplied by 1 +- up to this.
        shift: the window moves by up to so many samples; its edge value fills the gap.
        balance: 0 draws classes as often as they are, 1 equally often; between, by share to the power 1 - balance.
    """

    noise: float = 0.0
    scale: float = 0.0
    shift: int = 0
    balance: float = 0.0


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hyper-parameters that the author recommends; a plan may state others but for the augmentation.

    Attributes:
        learning_rate: of the optimiser.
        momentum: of SGD; Adam's first decay rate.
        batch: examples per step.
        epochs: passes over the examples.
        proximal_mu: weight of the FedProx term, 0 for none.
        gradient_clip: largest L2 norm of a step's whole gradient, 0 for any.
        augmentation: None for none.
    """

    learning_rate: float
    momentum: float
    batch: int
    epochs: int
    proximal_mu: float = 0.0
    gradient_clip: float = 0.0
    augmentation: Augmentation | None = None


def augmentation_fault(augmentation: Augmentation | None, task: Task, length: int) -> str:
    """What is wrong with an augmentation of windows of so many samples, as a sentence; empty where nothing is."""
    if augmentation is None:
        return ""
    sizes = (augmentation.noise, augmentation.scale, augmentation.balance)
    if not all(map(math.isfinite, sizes)) or augmentation.noise < 0 or not 0 <= augmentation.scale <= 1:
        return "noise of an augmentation is 0 or more, and scale is 0 to 1"
    if not 0 <= augmentation.shift < length or not 0 <= augmentation.balance <= 1:
        return "shift of an augmentation is 0 or more samples, less than a window, and balance is 0 to 1"
    if augmentation.balance and task == "regression":
        return "a regression has no classes that an augmentation could balance"
    return ""


def first_layer(suffixes: Sequence[Suffix], name: str) -> int | None:
    """Where a suffix begins; None when there is none of that name."""
    return 0 if name == ALL else next((suffix.first_layer for suffix in suffixes if suffix.name == name), None)


def suffix_tensors(steps: Sequence[Step], first: int) -> tuple[TensorSpec, ...]:
    """The tensors that training the layers from place `first` on may change, `amax` last.

    `amax` as a whole is one of them; the ranges of layers before `first` stay as they are.
    """
    inside = {spec.name for step in steps[first:] for spec in tensors_of(step)}
    return tuple(spec for spec in layer_tensors(steps) if spec.name in inside or spec.name == AMAX)


def optimiser_tensors(graph: TrainingGraph, trained: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The optimiser's state: zero at the start, without a file, and never off the device.

    Args:
        graph: names the optimiser.
        trained: of `suffix_tensors`; those that are only observed have no state.
    """
    moments = {"sgd": ("velocity.",), "adam": ("first.", "second.")}[graph.optimiser]
    specs = [
        TensorSpec(moment + spec.name, spec.shape, shared=False)
        for spec in trained
        if spec.trained
        for moment in moments
    ]
    count = [TensorSpec("steps", (), shared=False)] if graph.optimiser == "adam" else []
    return (*specs, *count)


def training_inputs(
    graph: TrainingGraph, parameters: Sequence[TensorSpec], changed: Sequence[TensorSpec]
) -> tuple[str, ...]:
    """The names of what a training graph is fed.

    Args:
        graph: names level and optimiser.
        parameters: of the model.
        changed: of `suffix_tensors`.
    """
    trained = [spec.name for spec in changed if spec.trained]
    kept = [name for name in trained if graph.level == "Q2" and name.startswith("w")]
    return (
        *(WINDOWS, TARGETS, *RATES),
        *(spec.name for spec in parameters),
        *(START + name for name in trained),
        *(spec.name for spec in optimiser_tensors(graph, changed)),
        *(name + SCALE for name in kept),
        *((NOISE,) if kept else ()),
    )


def training_outputs(graph: TrainingGraph, changed: Sequence[TensorSpec]) -> tuple[str, ...]:
    """The names of what a training graph gives; `changed` without the moments that a device sets."""
    return (LOSS, *(spec.name + NEXT for spec in (*changed, *optimiser_tensors(graph, changed))))
