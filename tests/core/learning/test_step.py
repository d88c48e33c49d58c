from __future__ import annotations

import numpy as np
import pytest

from bedside.core.codec.decoder import DecodedSum
from bedside.core.errors import MalformedError
from bedside.core.learning.step import CohortSum, next_checkpoint
from bedside.proto.v1 import plan_pb2


def test_a_plan_without_a_weighting_leads_to_no_checkpoint():
    plan = plan_pb2.Plan(cohorts=[plan_pb2.Cohort()])
    tensors = {"w": np.zeros(2, np.float32)}
    with pytest.raises(MalformedError) as caught:
        next_checkpoint(plan, [CohortSum(DecodedSum(tensors, {}), 3)], tensors, None)
    assert caught.value.code == "bad-weighting"
