"""What a trustee allows in view of what it opened before: quotas per day, evaluations per checkpoint (T4, T7)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bedside.core.policy.case import PURPOSE_NAMES
from bedside.core.policy.site_policy import SitePolicy
from bedside.core.policy.verdict import ALLOWED, Verdict, refused
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.signing.envelope import digest
from bedside.proto.v1 import plan_pb2

DAY_S: Final = 86_400
_MOMENT: Final = re.compile(r"(mean|square|variance)[0-9]+")


@dataclass(frozen=True, slots=True)
class PastRound:
    """A round that this trustee opened.

    Attributes:
        purpose: value of the wire's enum `Purpose`.
        checkpoint: BLAKE2b-256 of the parameters that it started from.
        opened_at_s: seconds since 1970.
    """

    purpose: int
    checkpoint: bytes
    opened_at_s: int


def sums_moments(plan: CheckedPlan) -> bool:
    """Whether the vector carries moments that were observed: of windows (`standardise`), or of a batch norm's inputs.

    Judged plans carry the model's own tensors under their own names, and these are what `core.bundle.parameters` says.
    """
    slots = (slot.name for segment in plan.layout.segments for slot in segment.tensors)
    return any(_MOMENT.fullmatch(name) is not None for name in slots)


def inputs_of(plan: CheckedPlan) -> bytes:
    """Names what a plan computes, apart from who takes part and when: two plans with one name repeat each other.

    A statistic is its template; what a model computes follows from bundle and checkpoint, and no other name of the
    task and no other learning rate makes it new. Observed moments are a device's own from whatever state a round
    starts, so all plans that sum them repeat each other, whatever else they sum.
    """
    named = plan.plan
    if sums_moments(plan):
        return digest(b"bedside/v1/inputs\0moments\0")
    if named.purpose == plan_pb2.PURPOSE_STATISTIC:
        return digest(b"bedside/v1/inputs\0statistic\0" + named.statistic_template.encode())
    purpose = bytes([named.purpose & 0xFF])
    return digest(b"bedside/v1/inputs\0model\0" + purpose + named.bundle.digest + named.checkpoint.digest)


def judge_history(plan: CheckedPlan, policy: SitePolicy, past: Sequence[PastRound], *, now_s: int) -> Verdict:
    """Judge a plan that `judge_plan` allows by what was opened before.

    Args:
        plan: the new one.
        policy: the site's rules.
        past: every round opened in the last day, and every evaluation of the plan's checkpoint ever.
        now_s: the trustee's clock.

    Returns:
        Allowed, or refused with `too-many-rounds`, `too-many-of-purpose` or `too-many-evaluations`.
    """
    purpose = plan.plan.purpose
    name = PURPOSE_NAMES.get(purpose, "unknown")
    today = [one for one in past if one.opened_at_s > now_s - DAY_S]
    if len(today) >= policy.max_rounds_per_day:
        return refused(
            "too-many-rounds",
            f"the plan would be round {len(today) + 1} of the last day; this site allows {policy.max_rounds_per_day}",
        )
    most = policy.quotas.get(name, policy.max_rounds_per_day)
    same = sum(one.purpose == purpose for one in today)
    if same >= most:
        return refused(
            "too-many-of-purpose",
            f"the plan would be round {same + 1} of the last day that sums for {name}; this site allows {most}",
        )
    if purpose == plan_pb2.PURPOSE_EVALUATE:
        done = sum(one.purpose == purpose and one.checkpoint == plan.plan.checkpoint.digest for one in past)
        if done >= policy.max_evaluations_per_checkpoint:
            return refused(
                "too-many-evaluations",
                f"the plan would be evaluation {done + 1} of one checkpoint;"
                f" this site allows {policy.max_evaluations_per_checkpoint}",
            )
    return ALLOWED
