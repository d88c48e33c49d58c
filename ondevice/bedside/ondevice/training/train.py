"""Local training on a device's own windows, from a round's start to its delta.

`train` is pure apart from computing: what it needs comes as arguments, and what it returns has not left the process.
Clipping, encoding and masking follow in the same child (`bedside.agent.rounds`), so that no plain delta is ever
written to a disk in a round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from bedside.core.bundle.training import ALL, Level, Optimiser, TrainingGraph
from bedside.core.bundle.verify import Bundle
from bedside.core.errors import MalformedError, RefusedError
from bedside.ondevice.refresh import float_runtime
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.scoring import Score, Truth, check_truth, score
from bedside.ondevice.training.step import Rates, TrainingStep, open_step


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a plan wants a device to train. All of it is the same for every device.

    Attributes:
        learning_rate: of SGD.
        momentum: of SGD.
        proximal_mu: weight of the FedProx term.
        batch: examples per step; what does not fill a batch waits for the next epoch's shuffle.
        epochs: passes over the examples.
        min_examples: fewer than this, and the device does not take part.
        min_steps: fewer local steps than this, and the device does not take part.
        seed: of the shuffles.
        gradient_clip: largest L2 norm of a step's gradient, 0 for any.
        level: how training is quantised.
        suffix: which layers are trained.
        optimiser: of the steps.
    """

    learning_rate: float
    momentum: float
    proximal_mu: float
    batch: int
    epochs: int
    min_examples: int
    min_steps: int
    seed: int
    gradient_clip: float = 0.0
    level: Level = "Q1"
    suffix: str = ALL
    optimiser: Optimiser = "sgd"


class Progress(msgspec.Struct, frozen=True):
    """After each epoch: how far, and the mean loss of that epoch."""

    epoch: int
    epochs: int
    loss: float


@dataclass(frozen=True, slots=True)
class Windows:
    """Training examples: `x` (n, L, C) float32 normalised, and `y`, what they are labelled with, see `Truth`."""

    x: Float32
    y: Truth


class Counts(msgspec.Struct, frozen=True):
    """What a device can add to secure sums about its training.

    Attributes:
        examples: windows trained on.
        steps: local steps taken.
        loss_before: mean loss of the first epoch's steps.
        loss_after: mean loss of the last epoch's steps.
        correct_before: of `examples`, those that are right (see `scoring`) with the parameters it started from (float).
        correct_after: likewise, with the parameters it ended with (float).
    """

    examples: int
    steps: int
    loss_before: float
    loss_after: float
    correct_before: int
    correct_after: int


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome: `delta` of the shared tensors, `state` of all of them, float32 by name, and the counts."""

    delta: dict[str, Float32]
    state: dict[str, Float32]
    counts: Counts


def train(
    bundle: Bundle,
    start: Mapping[str, Float32],
    windows: Windows,
    schedule: Schedule,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Train from `start` on `windows`.

    The activation ranges are shared like weights: a round's int8 model needs ranges that fit its averaged weights, and
    no single device has seen what the others see.

    Raises:
        RefusedError: `too-few-examples`; `no-such-graph`.
        MalformedError: `bad-examples` when a window or class does not fit the model.
    """
    _check(bundle, windows)
    batch, steps = _plan_steps(len(windows.y), schedule)
    graph = chosen_graph(bundle, schedule)
    rates = Rates(schedule.learning_rate, schedule.momentum, schedule.proximal_mu, schedule.gradient_clip)
    step = open_step(bundle, graph, start, rates)
    shuffles = np.random.default_rng(schedule.seed)
    losses: list[float] = []
    for epoch in range(1, schedule.epochs + 1):
        losses.append(_run_epoch(step, windows, shuffles.permutation(len(windows.y)), batch))
        on_progress(Progress(epoch, schedule.epochs, losses[-1]))
    state = step.parameters()
    counts = Counts(
        examples=len(windows.y),
        steps=steps,
        loss_before=losses[0],
        loss_after=losses[-1],
        correct_before=score_windows(bundle, start, windows).correct,
        correct_after=score_windows(bundle, state, windows).correct,
    )
    delta = {spec.name: state[spec.name] - start[spec.name] for spec in bundle.manifest.shared(graph.suffix)}
    return Trained(delta, state, counts)


def chosen_graph(bundle: Bundle, schedule: Schedule) -> TrainingGraph:
    """The training graph that a schedule names.

    Raises:
        RefusedError: `no-such-graph`.
    """
    graph = bundle.manifest.graph(schedule.level, schedule.suffix, schedule.optimiser)
    if graph is None:
        raise RefusedError(
            "no-such-graph",
            f"the bundle cannot be trained at {schedule.level} with {schedule.optimiser} from {schedule.suffix}",
            remedy="have its author build it with that graph, or plan one of those that it has",
        )
    return graph


def score_windows(bundle: Bundle, parameters: Mapping[str, Float32], windows: Windows) -> Score:
    """Score parameters of a bundle, in float."""
    return score(bundle.manifest, float_runtime(bundle, parameters).predict, [(windows.x, windows.y)])


def _run_epoch(step: TrainingStep, windows: Windows, order: npt.NDArray[np.int64], batch: int) -> float:
    """One pass in the given order; returns the mean loss of its steps."""
    starts = range(0, len(order) - batch + 1, batch)
    chosen = (order[first : first + batch] for first in starts)
    return sum(step(windows.x[picked], windows.y[picked]) for picked in chosen) / len(starts)


def _plan_steps(examples: int, schedule: Schedule) -> tuple[int, int]:
    """Return the batch size and the number of local steps, or refuse."""
    batch = max(1, min(schedule.batch, examples))
    steps = schedule.epochs * (examples // batch)
    if examples < max(1, schedule.min_examples) or steps < max(1, schedule.min_steps):
        raise RefusedError(
            "too-few-examples",
            f"{examples} examples give {steps} steps; the plan wants at least {schedule.min_examples} examples "
            f"and {schedule.min_steps} steps",
            remedy="the device takes part by itself when it has buffered more labelled windows",
        )
    return batch, steps


def _check(bundle: Bundle, windows: Windows) -> None:
    window, x, y = bundle.manifest.window, windows.x, windows.y
    if x.shape != (len(y), window.length, window.channels) or x.dtype != np.float32:
        raise _unfit(f"windows {x.dtype}{x.shape} with {len(y)} labels do not fit the model")
    if not np.isfinite(x).all():
        raise _unfit("a value is not finite")
    if fault := check_truth(bundle.manifest, y):
        raise _unfit(fault)


def _unfit(sentence: str) -> MalformedError:
    return MalformedError("bad-examples", sentence, remedy="check the window's stream and the labels' names")
