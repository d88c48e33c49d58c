"""The one step from opened sums to the next model: what a cohort may count, and what a lie about it is worth."""

from __future__ import annotations

import numpy as np
import pytest

from bedside.core.codec.decoder import DecodedSum
from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.learning.step import CohortSum, check_weight, next_checkpoint
from bedside.proto.v1 import plan_pb2

LEAST, MOST, DEVICES = 50, 200, 4


def plan() -> plan_pb2.Plan:
    return plan_pb2.Plan(
        training=plan_pb2.Training(weighting=plan_pb2.WEIGHTING_EXAMPLES, min_examples=LEAST, max_examples=MOST),
        server=plan_pb2.ServerStep(optimiser=plan_pb2.SERVER_OPTIMISER_FEDAVG, learning_rate_e6=1_000_000),
        cohorts=[plan_pb2.Cohort(index=0)],
    )


def cohort(examples: int, *, is_noisy: bool = False) -> CohortSum:
    decoded = DecodedSum({"w": np.ones(3, np.float32)}, {"examples": np.array(examples)})
    return CohortSum(decoded, DEVICES, is_noisy)


@pytest.mark.parametrize("examples", [DEVICES * LEAST, DEVICES * MOST])
def test_what_honest_devices_can_have_counted_passes(examples) -> None:
    check_weight(plan(), cohort(examples))


@pytest.mark.parametrize("examples", [0, 1, DEVICES * LEAST - 1, DEVICES * MOST + 1])
def test_a_count_that_no_honest_devices_have_leaves_the_cohort_out(examples) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_weight(plan(), cohort(examples))
    assert caught.value.code == "sum-out-of-bounds"
    check_weight(plan(), cohort(examples, is_noisy=True))


@pytest.mark.parametrize("is_noisy", [False, True])
def test_a_mean_is_never_longer_than_the_fewest_examples_allow(is_noisy) -> None:
    stepped = next_checkpoint(plan(), [cohort(1, is_noisy=is_noisy)], {"w": np.zeros(3, np.float32)}, None)
    np.testing.assert_allclose(stepped.parameters["w"], MOST / (DEVICES * LEAST))


def test_a_plan_without_a_weighting_leads_to_no_checkpoint() -> None:
    message = plan()
    message.training.weighting = plan_pb2.WEIGHTING_UNSPECIFIED
    with pytest.raises(MalformedError) as caught:
        next_checkpoint(message, [cohort(DEVICES * LEAST)], {"w": np.zeros(3, np.float32)}, None)
    assert caught.value.code == "bad-weighting"


def trained_alone(optimiser: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """One round that trains `head` and observes `amax`, of a model that has `stem` as well, and then another."""
    told = plan()
    told.server.CopyFrom(
        plan_pb2.ServerStep(
            optimiser=optimiser, learning_rate_e6=500_000, beta1_e6=900_000, beta2_e6=990_000, tau_e9=1_000_000
        )
    )
    for name, tensor in (("parameters", "head"), ("statistics", "amax")):
        told.layout.segments.add(name=name, kind=plan_pb2.SEGMENT_KIND_VALUE).tensors.add(name=tensor, shape=[2])
    sums = DecodedSum(
        {"head": np.array([4, 8], np.float32), "amax": np.array([2, 6], np.float32)},
        {"examples": np.array([400])},
    )
    before = {name: np.ones(2, np.float32) for name in ("stem", "head", "amax")}
    remembered = {"m/stem": np.full(2, 7, np.float32), "v/stem": np.full(2, 7, np.float32)}
    state = remembered if optimiser == plan_pb2.SERVER_OPTIMISER_FEDADAM else None
    step = next_checkpoint(told, [CohortSum(sums, 4)], before, state)
    return step.parameters, step.state


@pytest.mark.parametrize("optimiser", [plan_pb2.SERVER_OPTIMISER_FEDAVG, plan_pb2.SERVER_OPTIMISER_FEDADAM])
def test_what_devices_observe_is_averaged_whatever_the_optimiser_does_to_what_they_train(optimiser) -> None:
    parameters, _ = trained_alone(optimiser)
    (mean,) = {float(parameters["amax"][1] - 1) / 3, float(parameters["amax"][0] - 1)}
    assert mean > 0
    moved = parameters["head"] - 1
    if optimiser == plan_pb2.SERVER_OPTIMISER_FEDAVG:
        assert moved.tolist() == pytest.approx([mean, 2 * mean]), "half of twice the mean of amax's first"
    else:
        assert moved[0] == pytest.approx(moved[1], rel=0.01), "Adam looks at signs"


def test_a_frozen_layer_stays_and_what_is_remembered_of_it_too() -> None:
    parameters, state = trained_alone(plan_pb2.SERVER_OPTIMISER_FEDADAM)
    assert list(parameters) == ["stem", "head", "amax"]
    assert parameters["stem"].tolist() == [1, 1]
    assert state["m/stem"].tolist() == state["v/stem"].tolist() == [7, 7]
    assert set(state) == {"m/stem", "v/stem", "m/head", "v/head"}, "an average remembers nothing"
