"""From the cohorts' opened sums to the next model: the one function that coordinator, trustees and auditors share.

Invariant: the same plan, sums, parameters and state give the same bits on every machine; each line is element-wise
float32 in the plan's order of cohorts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bedside.core.codec.decoder import DecodedSum
from bedside.core.errors import ProtocolError
from bedside.core.learning.optimisers import server_optimiser
from bedside.core.learning.weighting import Weighting, bounded_examples, mean_delta
from bedside.proto.v1.plan_pb2 import SERVER_OPTIMISER_FEDAVG, WEIGHTING_EXAMPLES, Plan
from bedside.proto.v1.round_pb2 import CountSum

FloatArray = npt.NDArray[np.float32]

EXAMPLES: Final = "examples"
"""The count that weighs an example-weighted mean."""


class CohortSum(NamedTuple):
    """The opened sum of one cohort.

    Attributes:
        decoded: sums of tensors and counts.
        contributors: |S|, devices in it.
        is_noisy: whether its trustees added noise.
    """

    decoded: DecodedSum
    contributors: int
    is_noisy: bool


class NextModel(NamedTuple):
    """What a round led to.

    Attributes:
        parameters: of the next checkpoint.
        state: of the server optimiser after the step; empty for FedAvg.
        counts: sums over all cohorts, by name.
    """

    parameters: dict[str, FloatArray]
    state: dict[str, FloatArray]
    counts: dict[str, int]


def next_checkpoint(
    plan: Plan,
    sums: Sequence[CohortSum],
    parameters: Mapping[str, FloatArray],
    state: Mapping[str, FloatArray] | None,
) -> NextModel:
    """Combine the cohorts' sums and step the server optimiser.

    Args:
        plan: names weighting and optimiser.
        sums: of the opened cohorts, in the plan's order; at least one.
        parameters: of the plan's checkpoint.
        state: of the optimiser before the step; None when it begins anew.

    Raises:
        ProtocolError: `no-examples`, `tensor-mismatch`.
        MalformedError: `bad-optimiser`.
    """
    tensors, counts = _combined(sums)
    training, contributors = plan.training, sum(one.contributors for one in sums)
    examples = counts.get(EXAMPLES, 0)
    if any(one.is_noisy for one in sums):
        examples = bounded_examples(examples, contributors, training.min_examples, training.max_examples)
    mean = mean_delta(tensors, Weighting(training.weighting), contributors, examples, training.max_examples)
    server = plan.server
    optimiser = server_optimiser(
        server.optimiser,
        learning_rate_e6=server.learning_rate_e6,
        beta1_e6=server.beta1_e6,
        beta2_e6=server.beta2_e6,
        tau_e9=server.tau_e9,
    )
    known = state if server.optimiser != SERVER_OPTIMISER_FEDAVG else None
    stepped = optimiser.step(parameters, mean, known or optimiser.initial_state(parameters))
    return NextModel(stepped.parameters, stepped.state, counts)


def count_sums(counts: Mapping[str, int]) -> list[CountSum]:
    """Counts as a result states them: noise may carry one below zero, a result never says so."""
    return [CountSum(name=name, sum=max(0, value)) for name, value in counts.items()]


def check_weight(plan: Plan, opened: CohortSum) -> None:
    """A sum without any examples has no mean; its cohort is left out rather than the round lost.

    With noise the count says nothing of the kind: `bounded_examples` keeps it within what honest devices count.

    Raises:
        ProtocolError: `no-examples`.
    """
    weighted = plan.training.weighting == WEIGHTING_EXAMPLES and not opened.is_noisy
    if weighted and int(opened.decoded.counts[EXAMPLES].sum()) < 1:
        raise ProtocolError("no-examples", "the devices of this cohort counted no examples")


def _combined(sums: Sequence[CohortSum]) -> tuple[dict[str, FloatArray], dict[str, int]]:
    """Add the cohorts in their order: one float32 addition per element and cohort."""
    first = sums[0].decoded
    tensors = dict(first.tensors)
    counts = {name: int(value.sum()) for name, value in first.counts.items()}
    for later, _, _ in sums[1:]:
        tensors = {name: value + later.tensors[name] for name, value in tensors.items()}
        counts = {name: value + int(later.counts[name].sum()) for name, value in counts.items()}
    return tensors, counts
