"""What a bundle takes on this machine, each figure in a limited child of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from bedside.authoring.cost import batch_sizes, measure_cost
from bedside.authoring.replaying import Replayed, replay_in_children
from bedside.core.bundle.training import Cost
from bedside.core.bundle.verify import Bundle
from bedside.ondevice.runtimes import Float32


class Step(msgspec.Struct, frozen=True):
    """One training step here, and what the author had measured for the same graph and batch.

    Attributes:
        here: of this machine.
        stated: of the manifest; None when it does not say.
    """

    here: Cost
    stated: Cost | None


class Benched(msgspec.Struct, frozen=True):
    """What inference and training take here."""

    inference: Replayed
    steps: tuple[Step, ...]


def usual_batches(bundle: Bundle) -> tuple[int, ...]:
    """The batches that are measured when none is named: one example, those of a build, and what the manifest states."""
    stated = {cost.batch for cost in bundle.manifest.costs}
    return tuple(sorted({1, *batch_sizes(bundle.manifest.training.batch), *stated}))


def bench_bundle(
    bundle: Bundle, tar: bytes, signer_pks: Sequence[bytes], batches: Sequence[int], advance: Callable[[], None]
) -> Benched:
    """Measure a verified bundle; `advance` is called once for inference and once per training graph and batch.

    Raises:
        TrustError: `golden-mismatch`: what computes something else is not worth measuring.
        MalformedError: `bad-graph`, `bad-golden`.
        UnavailableError: `child-died`, `child-timeout`, `cost-not-measured`.
    """
    manifest, training = bundle.manifest, bundle.manifest.training
    rates = (training.learning_rate, training.momentum, training.proximal_mu, training.gradient_clip)
    examples = (cast("Float32", bundle.golden["x"]), bundle.golden["y"])
    inference = replay_in_children(tar, signer_pks)
    advance()
    steps = []
    for graph in manifest.graphs:
        data, changed = bundle.files[graph.file], manifest.changed(graph.suffix)
        for batch in batches:
            here = measure_cost(graph, data, bundle.parameters, changed, examples, batch, rates)
            stated = next((cost for cost in manifest.costs if (cost.graph, cost.batch) == (graph.key, batch)), None)
            steps.append(Step(here, stated))
            advance()
    return Benched(inference, tuple(steps))
