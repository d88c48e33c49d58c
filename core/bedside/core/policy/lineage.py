"""Where a plan's checkpoint comes from: the model's signed beginning, or the signed end of the round before.

A coordinator that may send any parameters can send crafted ones, which write single windows into the update. So the
checkpoint is the one that the manifest commits to, in the first round on a bundle, or that of the result which the
plan names by its digest. A coordinator can still sign a false result; it leaves its signature on it, and an audit
that recomputes the step finds it.
"""

from __future__ import annotations

from bedside.core.errors import BedsideError, ProtocolError
from bedside.core.policy.case import Case
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.signing.envelope import digest, open_signed, parse_strict
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.round_pb2 import Result


def open_previous(plan: CheckedPlan, previous: Signed | None) -> Result | None:
    """The verified result that a plan goes on from; None in a task's first round.

    Raises:
        ProtocolError: `no-previous-result`, or `other-result` when it is not the one that the plan names, or not of
            the round before in the same task.
        TrustError: `bad-signature`: the coordinator did not sign it.
        MalformedError: it is not well-formed.
    """
    named = plan.plan.previous_result_digest
    if not named:
        return None
    if previous is None:
        raise ProtocolError("no-previous-result", "the result that the plan goes on from did not come with it")
    result = parse_strict(Result, open_signed("result", previous, plan.coordinator_pk))
    before = (result.task, result.round_number + 1)
    if digest(previous.payload) != named or before != (plan.plan.task, plan.plan.round_number):
        raise ProtocolError("other-result", "the result beside the plan is not that of the round before it")
    return result


def checkpoint_outside_lineage(case: Case) -> str:
    """The checkpoint is the bundle's own, or the one that the previous result states."""
    plan = case.plan.plan
    try:
        result = open_previous(case.plan, case.previous)
    except BedsideError as error:
        return f"the plan's checkpoint cannot be traced: {error.sentence}"
    first = bytes.fromhex(case.manifest.checkpoint)
    goes_on = result is not None and result.bundle_digest == plan.bundle.digest
    if result is not None and goes_on and plan.checkpoint == result.checkpoint:
        return ""
    evaluates = plan.purpose == plan_pb2.PURPOSE_EVALUATE
    if plan.checkpoint.digest == first and (evaluates or not goes_on):
        return ""
    wanted = result.checkpoint.digest if result is not None and goes_on else first
    return (
        f"the plan starts from checkpoint {plan.checkpoint.digest.hex()[:12]}; its lineage allows"
        f" {wanted.hex()[:12]}, {'of the result before it' if goes_on else 'which the model was signed with'}"
    )
