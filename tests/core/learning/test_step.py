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
