"""What a rule sees: the plan, the policy, the signed manifest and result, and times that were passed in; never data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bedside.core.bundle.manifest import Manifest
from bedside.core.codec.layout import Segment, SegmentKind
from bedside.core.policy.site_policy import SitePolicy
from bedside.core.securesum.plans import CheckedPlan
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.common_pb2 import Signed

PURPOSE_NAMES: Final = {
    plan_pb2.PURPOSE_TRAIN: "train",
    plan_pb2.PURPOSE_EVALUATE: "evaluate",
    plan_pb2.PURPOSE_STATISTIC: "statistic",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One plan before one site's policy.

    Attributes:
        plan: signature and bounds held.
        policy: the site's rules.
        manifest: the model's, signed by a listed author.
        own_site: the site that judges.
        previous: kind "result", not yet verified; None where none came with the plan.
        now_s: this machine's clock, seconds since 1970; None where there is none to trust.
        local_minute: the same moment in minutes after local midnight; None as `now_s`.
    """

    plan: CheckedPlan
    policy: SitePolicy
    manifest: Manifest
    own_site: str
    previous: Signed | None = None
    now_s: int | None = None
    local_minute: int | None = None

    @property
    def purpose(self) -> str:
        """What the plan sums for; `unknown` for what this version has no name for."""
        return PURPOSE_NAMES.get(self.plan.plan.purpose, "unknown")

    @property
    def trains(self) -> bool:
        """Whether contributions are trained."""
        return self.plan.plan.purpose == plan_pb2.PURPOSE_TRAIN

    @property
    def cohort(self) -> plan_pb2.Cohort | None:
        """The own site's cohort."""
        return next((cohort for cohort in self.plan.plan.cohorts if self.own_site in cohort.sites), None)

    def segments(self, kind: SegmentKind) -> list[Segment]:
        """The vector's segments of one kind."""
        return [segment for segment in self.plan.layout.segments if segment.kind is kind]


def noise_covers(policy: SitePolicy) -> bool:
    """Whether the own trustee adds noise by its own site's choice.

    What a plan asks for does not count: it is the coordinator's word, and may be too little to cover anything.
    """
    return policy.noise_multiplier > 0
