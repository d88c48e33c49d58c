"""Local training on a device's own windows, from a round's start to its delta.

`train` is pure apart from computing: what it needs comes as arguments, and what it returns has not left the process.
Clipping, encoding and masking follow in the same child (`bedside.agent.rounds`), so that no plain delta is ever
written to a disk in a round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bedside.core.bundle.training import ALL, Level, Optimiser, TrainingGraph
from bedside.core.bundle.verify import Bundle
from bedside.core.errors import RefusedError
from bedside.ondevice.refresh import float_runtime
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.augment import Augmenter
from bedside.ondevice.training.examples import Examples, checked
from bedside.ondevice.training.moments import own_moments
from bedside.ondevice.training.position import Between, Position, Saved
from bedside.ondevice.training.scoring import SCORING_BATCH, Truth, new_score
from bedside.ondevice.training.step import Rates, TrainingStep, open_step


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a plan wants a device to train. All of it but the noise is the same for every device.

    Attributes:
        learning_rate: of the optimiser.
        momentum: of SGD; Adam's first decay rate.
        proximal_mu: weight of the FedProx term.
        batch: examples per step; what does not fill a batch waits for the next epoch's shuffle.
        epochs: passes over the examples.
        min_examples: fewer than this, and the device does not take part.
        min_steps: fewer local steps than this, and the device does not take part.
        seed: of the shuffles and the augmentation.
        gradient_clip: largest L2 norm of a step's gradient, 0 for any.
        level: how training is quantised.
        suffix: which layers are trained.
        optimiser: of the steps.
        noise_seed: of the rounding at Q2. Another on each device and in each round, or their errors would add up.
        max_steps: training ends after so many steps, though epochs are left; 0 for no such bound.
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
    noise_seed: int = 0
    max_steps: int = 0


class Progress(msgspec.Struct, frozen=True):
    """After each epoch: how far, and the mean loss of that epoch; why the state cannot be saved, where it cannot."""

    epoch: int
    epochs: int
    loss: float
    unsaved: str = ""


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
    examples: Examples,
    schedule: Schedule,
    on_progress: Callable[[Progress], None] = lambda _: None,
    *,
    saved: Saved | None = None,
    between: Callable[[Between], None] = lambda _: None,
    session: ort.InferenceSession | None = None,
    judged: bool = True,
) -> Trained:
    """Train from `start` on `examples`, or go on from where the same training stopped.

    The activation ranges are shared like weights: a round's int8 model needs ranges that fit its averaged weights, and
    no single device has seen what the others see.

    Args:
        bundle: the model.
        start: parameters to begin with.
        examples: what to train on.
        schedule: how.
        on_progress: called after each epoch.
        saved: from an earlier run with the same arguments; the outcome is the same to the bit.
        between: called after every batch; what it raises ends the run there.
        session: has the training graph open already, for who trains again and again.
        judged: whether the examples are scored before and after; without, those counts are 0.

    Raises:
        RefusedError: `too-few-examples`; `no-such-graph`; `diverged` when a loss or a parameter is not finite.
        MalformedError: `bad-examples` when a window or class does not fit the model; `bad-training-state`.
    """
    count = len(examples)
    batch, steps = _plan_steps(count, schedule)
    graph = chosen_graph(bundle, schedule)
    rates = Rates(schedule.learning_rate, schedule.momentum, schedule.proximal_mu, schedule.gradient_clip)
    local, shared = _moments(bundle, graph, examples)
    start = {**start, **local}
    step = open_step(bundle, graph, start, rates, schedule.noise_seed, session)
    position = Position()
    if saved is not None:
        step.restore(saved.state)
        position = saved.position
    augmenter = Augmenter(bundle.manifest.task, bundle.manifest.training.augmentation, examples.y, schedule.seed)
    course = _Course(bundle, examples, augmenter, step, steps, batch, between)
    if judged:
        position = course.judge(position, start, "before")
    epochs = -(-steps // (count // batch))
    for epoch in range(1, epochs + 1):
        order = augmenter.next_order()
        if epoch > len(position.losses):
            position = course.run_epoch(position, order)
            on_progress(Progress(epoch, epochs, position.losses[-1]))
    state = step.parameters()
    if not all(np.isfinite(array).all() for array in state.values()):
        raise _diverged()
    if judged:
        position = course.judge(position, state, "after")
    counts = Counts(
        examples=count,
        steps=steps,
        loss_before=position.losses[0],
        loss_after=position.losses[-1],
        correct_before=position.correct_before,
        correct_after=position.correct_after,
    )
    ended = state | shared
    delta = {spec.name: ended[spec.name] - start[spec.name] for spec in bundle.manifest.shared(graph.suffix)}
    return Trained(delta, state, counts)


def _moments(bundle: Bundle, graph: TrainingGraph, examples: Examples) -> tuple[dict[str, Float32], dict[str, Float32]]:
    """The examples' own moments, when the suffix has the layer that standardises: the local, and the shared.

    Local ones are trained with. Shared ones only travel: everybody trains with those that the round began with.
    """
    changed = {spec.name: spec.shared for spec in bundle.manifest.changed(graph.suffix)}
    count = len(examples)
    numbers = (_numbers(first, count) for first in range(0, count, SCORING_BATCH))
    batches = (checked(bundle.manifest, examples.take(picked))[0] for picked in numbers)
    own = own_moments(bundle.manifest.steps(), batches)
    parts: tuple[dict[str, Float32], dict[str, Float32]] = ({}, {})
    for name, array in own.items():
        if name in changed:
            parts[changed[name]][name] = array
    return parts


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


class _Course:
    """Moves one training on, batch by batch."""

    def __init__(
        self,
        bundle: Bundle,
        examples: Examples,
        augmenter: Augmenter,
        step: TrainingStep,
        steps: int,
        batch: int,
        between: Callable[[Between], None],
    ) -> None:
        self._bundle = bundle
        self._examples = examples
        self._augmenter = augmenter
        self._step = step
        self._steps = steps
        self._batch = batch
        self._between = between

    def judge(
        self, position: Position, parameters: Mapping[str, Float32], when: Literal["before", "after"]
    ) -> Position:
        """Count the examples on which the float model with these parameters is right."""
        count = len(self._examples)
        judged = position.judged_before if when == "before" else position.judged_after
        correct = position.correct_before if when == "before" else position.correct_after
        runtime = float_runtime(self._bundle, parameters) if judged < count else None
        while runtime is not None and judged < count:
            batch = self._take(_numbers(judged, count))
            found = new_score(self._bundle.manifest)
            found.add(runtime.predict(batch[0]), batch[1])
            judged, correct = judged + len(batch[1]), correct + found.correct
            changes = {f"judged_{when}": judged, f"correct_{when}": correct}
            position = self._at(msgspec.structs.replace(position, **changes))
        return position

    def run_epoch(self, position: Position, order: npt.NDArray[np.int64]) -> Position:
        """The rest of one pass in the given order, its windows augmented; the last one may end early."""
        batch, steps = self._batch, len(order) // self._batch
        steps = min(steps, self._steps - len(position.losses) * steps)
        for number in range(position.step, steps):
            x, y = self._take(order[number * batch : (number + 1) * batch])
            loss = self._step(self._augmenter.augmented(x, len(position.losses), number), y)
            if not math.isfinite(loss):
                raise _diverged()
            total = position.loss_sum + loss
            if number + 1 < steps:
                position = msgspec.structs.replace(position, step=number + 1, loss_sum=total)
            else:
                losses = (*position.losses, total / steps)
                position = msgspec.structs.replace(position, losses=losses, step=0, loss_sum=0.0)
            self._at(position)
        return position

    def _take(self, picked: npt.NDArray[np.int64]) -> tuple[Float32, Truth]:
        return checked(self._bundle.manifest, self._examples.take(picked))

    def _at(self, position: Position) -> Position:
        done = position.steps_done(len(self._examples) // self._batch)
        self._between(Between(position, self._steps - done, self._step.state))
        return position


def _diverged() -> RefusedError:
    return RefusedError(
        "diverged",
        "the training diverged: its loss or a parameter is not finite any more",
        remedy="look for labels with a wrong value or unit, or plan a lower learning rate or a gradient clip",
    )


def _numbers(first: int, count: int) -> npt.NDArray[np.int64]:
    return np.arange(first, min(first + SCORING_BATCH, count))


def _plan_steps(examples: int, schedule: Schedule) -> tuple[int, int]:
    """Return the batch size and the number of local steps, or refuse."""
    batch = max(1, min(schedule.batch, examples))
    steps = schedule.epochs * (examples // batch)
    if schedule.max_steps:
        steps = min(steps, schedule.max_steps)
    if examples < max(1, schedule.min_examples) or steps < max(1, schedule.min_steps):
        raise RefusedError(
            "too-few-examples",
            f"{examples} examples give {steps} steps; the plan wants at least {schedule.min_examples} examples "
            f"and {schedule.min_steps} steps",
            remedy="the device takes part by itself when it has buffered more labelled windows",
        )
    return batch, steps
