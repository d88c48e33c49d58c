"""`judge_plan`: the one function by which device and trustee decide whether a plan is allowed (rule T7).

Each rule is one function that returns nothing or a refusal; its code is stable, and its sentence says both what the
plan asks and what the site allows, so that an operator can act on it. The rules see the plan, the policy and the
signed manifest, never any data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bedside.core.bundle.manifest import SIGNED_KIND, Manifest, decode_manifest
from bedside.core.codec.layout import SegmentKind
from bedside.core.errors import BedsideError, TrustError
from bedside.core.policy.site_policy import SitePolicy
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.signing.envelope import digest, open_signed
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.common_pb2 import Signed

COUNTS: Final = frozenset({"examples", "correct"})
"""The count words that a training plan may ask for."""

_WHOLE_E32: Final = 1 << 32
_PURPOSE_NAMES: Final = {
    plan_pb2.PURPOSE_TRAIN: "train",
    plan_pb2.PURPOSE_EVALUATE: "evaluate",
    plan_pb2.PURPOSE_STATISTIC: "statistic",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Allowed, or refused with a stable code and a sentence for the operator."""

    allowed: bool
    code: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class _Case:
    plan: CheckedPlan
    policy: SitePolicy
    manifest: Manifest
    own_site: str
    now_s: int | None


ALLOWED: Final = Verdict(allowed=True)


def judge_plan(
    plan: CheckedPlan, policy: SitePolicy, manifest: Signed, *, own_site: str, now_s: int | None = None
) -> Verdict:
    """Judge a verified plan by a site's policy.

    Args:
        plan: signature and bounds already held.
        policy: the site's rules.
        manifest: kind "bundle"; the model's manifest with its author's signature.
        own_site: the site that judges.
        now_s: this machine's clock; None where there is none to trust.

    Returns:
        The first rule that says no, or `ALLOWED`. Never raises on bad input: that is a refusal too.
    """
    try:
        opened = _open_manifest(plan, policy, manifest)
    except BedsideError as error:
        return Verdict(allowed=False, code=error.code, sentence=error.sentence)
    case = _Case(plan, policy, opened, own_site, now_s)
    for rule in RULES:
        sentence = rule(case)
        if sentence:
            return Verdict(allowed=False, code=rule.__name__.strip("_").replace("_", "-"), sentence=sentence)
    return ALLOWED


def signer_of(policy: SitePolicy, manifest: Signed) -> str:
    """Name of the listed signer whose signature the manifest carries.

    Raises:
        TrustError: `unknown-signer`.
    """
    for name, key in policy.bundle_signers.items():
        try:
            open_signed(SIGNED_KIND, manifest, bytes.fromhex(key))
        except TrustError:
            continue
        return name
    raise TrustError(
        "unknown-signer",
        "no signer that this site allows has signed the model",
        remedy="add the author's key to bundle_signers in the site's policy, if the author is to be trusted",
    )


def _open_manifest(plan: CheckedPlan, policy: SitePolicy, manifest: Signed) -> Manifest:
    signer_of(policy, manifest)
    if digest(manifest.payload) != plan.plan.bundle.digest:
        raise TrustError("other-bundle", "the manifest is not that of the plan's bundle")
    return decode_manifest(manifest.payload)


def _task_not_allowed(case: _Case) -> str:
    task = case.plan.plan.task
    if case.policy.tasks and task not in case.policy.tasks:
        return f"site {case.own_site} does not take part in task {task}"
    return ""


def _purpose_not_allowed(case: _Case) -> str:
    purpose = _PURPOSE_NAMES.get(case.plan.plan.purpose, "unknown")
    if purpose not in case.policy.purposes:
        return f"site {case.own_site} does not allow sums for {purpose}"
    if purpose != "train":
        return f"this version takes part in training only, not in {purpose} rounds"
    return ""


def _site_not_in_plan(case: _Case) -> str:
    if not any(case.own_site in cohort.sites for cohort in case.plan.plan.cohorts):
        return f"the plan does not name site {case.own_site}"
    return ""


def _too_few_trustees(case: _Case) -> str:
    cohort = _own_cohort(case)
    sites = {trustee.site for trustee in cohort.trustees}
    if case.own_site not in sites:
        return f"the trustee of site {case.own_site} is not among the cohort's trustees"
    if len(sites) < case.policy.min_trustees:
        return f"site {case.own_site} asks for trustees of {case.policy.min_trustees} sites; the plan has {len(sites)}"
    return ""


def _too_few_contributors(case: _Case) -> str:
    asked = case.plan.plan.min_contributors
    if asked < case.policy.min_contributors:
        wanted = case.policy.min_contributors
        return f"site {case.own_site} asks for sets of at least {wanted} devices; the plan allows {asked}"
    return ""


def _codec_out_of_range(case: _Case) -> str:
    plan, policy = case.plan.plan, case.policy
    low, high = policy.word_bits
    if not low <= plan.word_bits <= high:
        return f"words of {plan.word_bits} bits are outside the site's {low} to {high}"
    low, high = policy.value_bits
    values = [segment for segment in case.plan.layout.segments if segment.kind is SegmentKind.VALUE]
    if any(not low <= segment.bits <= high for segment in values):
        return f"a segment's bits are outside the site's {low} to {high}"
    share = plan.subsample_e32 / _WHOLE_E32 or 1.0
    if share < policy.min_subsample:
        return f"the plan sends {share:.4g} of the coordinates; the site asks for at least {policy.min_subsample:.4g}"
    norm = math.sqrt(sum(segment.clip**2 for segment in values))
    if norm > policy.max_clip:
        return f"contributions of norm {norm:g} are above the site's limit of {policy.max_clip:g}"
    return ""


def _layout_not_the_models(case: _Case) -> str:
    """The vector carries exactly the shared tensors and known counts: a local tensor is never declared shared."""
    asked = [
        (slot.name, slot.shape)
        for segment in case.plan.layout.segments
        if segment.kind is SegmentKind.VALUE
        for slot in segment.tensors
    ]
    shared = [(tensor.name, tensor.shape) for tensor in case.manifest.shared()]
    if asked != shared:
        return "the plan's vector does not carry exactly the model's shared tensors"
    counts = {segment.name for segment in case.plan.layout.segments if segment.kind is SegmentKind.COUNT}
    if not counts <= COUNTS or any(s.tensors for s in case.plan.layout.segments if s.kind is SegmentKind.COUNT):
        return f"the plan asks for counts other than {', '.join(sorted(COUNTS))}"
    return ""


def _training_out_of_range(case: _Case) -> str:
    training, policy = case.plan.plan.training, case.policy
    checks = (
        (training.level in (plan_pb2.LEVEL_Q0, plan_pb2.LEVEL_Q1), "the plan's quantisation level is not known here"),
        (not training.suffix, "training a suffix of the layers is not known to this version"),
        (training.batch_size >= policy.min_batch, f"batches are smaller than the site's {policy.min_batch}"),
        (training.min_local_steps >= policy.min_local_steps, f"fewer local steps than {policy.min_local_steps}"),
        (training.min_examples >= policy.min_examples, f"fewer examples per device than {policy.min_examples}"),
        (training.max_examples >= training.min_examples, "max_examples is below min_examples"),
        (training.min_sessions >= policy.min_sessions, f"fewer sessions per device than {policy.min_sessions}"),
        (1 <= training.epochs <= policy.max_epochs, f"more epochs than {policy.max_epochs}, or none"),
        (0 < training.learning_rate_e9 <= policy.max_learning_rate * 1e9, "the learning rate is out of range"),
        (training.momentum_e6 < 1_000_000, "the momentum is not below 1"),
        (training.weighting != plan_pb2.WEIGHTING_UNSPECIFIED, "the weighting is missing"),
    )
    return next((sentence for holds, sentence in checks if not holds), "")


def _closes_too_late(case: _Case) -> str:
    plan = case.plan.plan
    hours = (plan.close_at_s - plan.issued_at_s) / 3600
    if hours > case.policy.max_close_hours:
        return f"the round stays open for {hours:.0f} hours; the site allows {case.policy.max_close_hours}"
    if case.now_s is not None and case.now_s > plan.close_at_s:
        return "the round has already closed"
    return ""


def _own_cohort(case: _Case) -> plan_pb2.Cohort:
    return case.plan.cohort(case.plan.cohort_of(case.own_site))


RULES: Final[tuple[Callable[[_Case], str], ...]] = (
    _site_not_in_plan,
    _task_not_allowed,
    _purpose_not_allowed,
    _too_few_trustees,
    _too_few_contributors,
    _codec_out_of_range,
    _layout_not_the_models,
    _training_out_of_range,
    _closes_too_late,
)
"""In the order in which they are asked; the function's name is the refusal's code."""
