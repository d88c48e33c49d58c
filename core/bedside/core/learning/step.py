"""From the cohorts' opened sums to the next model: the one function that coordinator, trustees and auditors share.

Invariant: the same plan, sums, parameters and state give the same bits on every machine; each line is element-wise
float32 in the plan's order of cohorts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bedside.core.codec.decoder import DecodedSum
from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.learning.combiners import CohortPart, combiner_of
from bedside.core.learning.optimisers import FedAvg, server_optimiser
from bedside.core.learning.weighting import Weighting, bounded_examples
from bedside.proto.v1.plan_pb2 import SERVER_OPTIMISER_FEDAVG, WEIGHTING_UNSPECIFIED, Plan
from bedside.proto.v1.round_pb2 import CountSum

FloatArray = npt.NDArray[np.float32]

EXAMPLES: Final = "examples"
"""The count that weighs an example-weighted mean."""

STATISTICS: Final = "statistics"
"""The segment of tensors that devices observe and no gradient moves: their next value is the mean of the devices'."""


class CohortSum(NamedTuple):
    """The opened sum of one cohort.

    Attributes:
        decoded: sums of tensors and counts.
        contributors: |S|, devices in it.
        is_noisy: whether a trustee added noise.
    """

    decoded: DecodedSum
    contributors: int
    is_noisy: bool = False


class NextModel(NamedTuple):
    """What a round led to.

    Attributes:
        parameters: of the next checkpoint; empty when there is no step.
        state: of the server optimiser after the step; empty for FedAvg.
        counts: sums over all opened cohorts, by name, also of those that a combiner leaves out.
        no_step: why the model stays as it was; None when it moved.
    """

    parameters: dict[str, FloatArray]
    state: dict[str, FloatArray]
    counts: dict[str, int]
    no_step: ProtocolError | None = None


def next_checkpoint(
    plan: Plan,
    sums: Sequence[CohortSum],
    parameters: Mapping[str, FloatArray],
    state: Mapping[str, FloatArray] | None,
) -> NextModel:
    """Combine the cohorts' sums and step the server optimiser.

    Args:
        plan: names combiner, weighting and optimiser.
        sums: of the opened cohorts, in the plan's order; at least one.
        parameters: of the plan's checkpoint.
        state: of the optimiser before the step; None when it begins anew.

    Raises:
        ProtocolError: `tensor-mismatch`, `delta-not-finite`.
        MalformedError: `bad-optimiser`, `bad-combiner`, `bad-weighting`.
    """
    counts = {name: sum(int(one.decoded.counts[name].sum()) for one in sums) for name in sums[0].decoded.counts}
    server = plan.server
    combiner = combiner_of(server.combiner, server.trim_cohorts, len(plan.cohorts), plan.subsample_e32)
    try:
        combiner.check_opened(len(sums))
    except ProtocolError as error:
        return NextModel({}, {}, counts, error)
    if plan.training.weighting == WEIGHTING_UNSPECIFIED:
        raise MalformedError("bad-weighting", "the plan does not say how devices are weighed")
    weighting = Weighting(plan.training.weighting)
    parts = [CohortPart(one.decoded.tensors, one.contributors, _bounded(plan, one)) for one in sums]
    mean = combiner.combine(parts, weighting, plan.training.max_examples)
    optimiser = server_optimiser(
        server.optimiser,
        learning_rate_e6=server.learning_rate_e6,
        beta1_e6=server.beta1_e6,
        beta2_e6=server.beta2_e6,
        tau_e9=server.tau_e9,
    )
    observed = {slot.name for segment in plan.layout.segments if segment.name == STATISTICS for slot in segment.tensors}
    trained = {name: parameters[name] for name in parameters if name in mean and name not in observed}
    known = dict(state or {}) if server.optimiser != SERVER_OPTIMISER_FEDAVG else {}
    before = optimiser.initial_state(trained)
    before |= {name: array for name, array in known.items() if name in before}
    stepped = optimiser.step(trained, _without(mean, observed), before)
    averaged = FedAvg().step(_only(parameters, observed), _only(mean, observed), {})
    # What a plan does not train, a suffix's frozen layers, stays as it is, and so does what was remembered of it.
    after = {**parameters, **averaged.parameters, **stepped.parameters}
    return NextModel({name: after[name] for name in parameters}, known | stepped.state, counts)


def _only(tensors: Mapping[str, FloatArray], names: Collection[str]) -> dict[str, FloatArray]:
    return {name: array for name, array in tensors.items() if name in names}


def _without(tensors: Mapping[str, FloatArray], names: Collection[str]) -> dict[str, FloatArray]:
    return {name: array for name, array in tensors.items() if name not in names}


def count_sums(counts: Mapping[str, int]) -> list[CountSum]:
    """Counts as a result states them: noise may carry one below zero, a result never says so."""
    return [CountSum(name=name, sum=max(0, value)) for name, value in counts.items()]


def check_weight(plan: Plan, one: CohortSum) -> None:
    """Refuse a count of examples that no honest devices have together: each has the plan's least to most, or declines.

    With noise the count may be anything; `bounded_examples` then keeps it within the same bounds.

    Raises:
        ProtocolError: `sum-out-of-bounds`.
    """
    counted = _examples(one)
    if not one.is_noisy and counted != _bounded(plan, one):
        raise ProtocolError(
            "sum-out-of-bounds",
            f"{one.contributors} devices counted {counted} examples together, which honest ones cannot",
            remedy="a device or trustee of this cohort sent something else than its protocol says; leave it out",
        )


def _examples(one: CohortSum) -> int:
    return int(one.decoded.counts[EXAMPLES].sum()) if EXAMPLES in one.decoded.counts else 0


def _bounded(plan: Plan, one: CohortSum) -> int:
    if EXAMPLES not in one.decoded.counts:
        return 0
    training = plan.training
    return bounded_examples(_examples(one), one.contributors, training.min_examples, training.max_examples)
