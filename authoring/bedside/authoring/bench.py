"""What a bundle takes on this machine, each figure in a limited child of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from bedside.authoring.cost import LIMITS, batch_sizes, measure_cost
from bedside.authoring.replaying import Replayed, replay_in_children
from bedside.core.bundle.training import Cost
from bedside.core.bundle.verify import Bundle
from bedside.core.errors import UnavailableError
from bedside.ondevice.confinement import Limits
from bedside.ondevice.golden import DEFAULT_LIMITS
from bedside.ondevice.runtimes import Float32


class Step(msgspec.Struct, frozen=True):
    """One training step here, and what the author had measured for the same graph and batch.

    Attributes:
        here: of this machine.
        stated: of the manifest; None when it does not say.
    """

    here: Cost
    stated: Cost | None


class Failed(msgspec.Struct, frozen=True):
    """A training step that could not be measured, and why."""

    graph: str
    batch: int
    why: str


class Benched(msgspec.Struct, frozen=True):
    """What inference and training take here, as far as it could be measured."""

    inference: Replayed
    steps: tuple[Step, ...]
    failed: tuple[Failed, ...]


def usual_batches(bundle: Bundle) -> tuple[int, ...]:
    """The batches that are measured when none is named: one example, those of a build, and what the manifest states."""
    stated = {cost.batch for cost in bundle.manifest.costs}
    return tuple(sorted({1, *batch_sizes(bundle.manifest.training.batch), *stated}))


def bench_bundle(
    bundle: Bundle,
    tar: bytes,
    signer_pks: Sequence[bytes],
    batches: Sequence[int],
    tell: Callable[[str], None],
    timeout_s: float | None = None,
) -> Benched:
    """Measure a verified bundle. One step that cannot be measured does not keep the others from it.

    Args:
        bundle: what is measured.
        tar: its bytes.
        signer_pks: accepted signers.
        batches: examples per step, each for every training graph.
        tell: called with each figure in words, as it is there.
        timeout_s: of each measurement; by default what a build and a device allow.

    Raises:
        TrustError: `golden-mismatch`: what computes something else is not worth measuring.
        MalformedError: `bad-graph`, `bad-golden`.
        UnavailableError: `child-died`, `child-timeout`: not even a window could be.
    """
    manifest, training = bundle.manifest, bundle.manifest.training
    rates = (training.learning_rate, training.momentum, training.proximal_mu, training.gradient_clip)
    examples = (cast("Float32", bundle.golden["x"]), bundle.golden["y"])
    inference = replay_in_children(tar, signer_pks, _within(DEFAULT_LIMITS, timeout_s))
    tell("a window: " + ", ".join(f"{one.median_us:g} us on {one.runtime}" for one in inference.measured))
    steps, failed, limits = [], [], _within(LIMITS, timeout_s)
    for graph in manifest.graphs:
        data, changed = bundle.files[graph.file], manifest.changed(graph.suffix)
        for batch in batches:
            try:
                here = measure_cost(graph, data, bundle.parameters, changed, examples, batch, rates, limits)
            except UnavailableError as error:
                failed.append(Failed(graph.key, batch, error.sentence))
                tell(error.sentence)
                continue
            stated = next((cost for cost in manifest.costs if (cost.graph, cost.batch) == (graph.key, batch)), None)
            steps.append(Step(here, stated))
            tell(f"a step of {graph.key} with {batch} examples: {here.step_ms:g} ms, {here.rss_mb:g} MB")
    return Benched(inference, tuple(steps), tuple(failed))


def _within(limits: Limits, timeout_s: float | None) -> Limits:
    return limits if timeout_s is None else dataclasses.replace(limits, timeout_s=timeout_s)
