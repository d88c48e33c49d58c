"""`judge_plan`: the one function by which device and trustee decide whether a plan is allowed (rules T3, T4 and T7).

Each rule is one function that returns nothing or a sentence; its code is stable, and its sentence says both what the
plan asks and what the site allows, so that an operator can act on it. The rules see the plan, the policy, the signed
manifest and the signed result before it, never any data. What needs a memory is judged by `history` and `sets`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from bedside.core.bundle.manifest import SIGNED_KIND, Manifest, claimed_signer, decode_manifest
from bedside.core.errors import BedsideError, TrustError
from bedside.core.policy import lineage, participation, times, training, vector
from bedside.core.policy.case import Case
from bedside.core.policy.site_policy import SitePolicy
from bedside.core.policy.vector import COUNTS
from bedside.core.policy.verdict import ALLOWED, Verdict, refused
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.signing.envelope import digest, open_signed
from bedside.proto.v1.common_pb2 import Signed

__all__ = ["ALLOWED", "COUNTS", "RULES", "Judged", "Rule", "Verdict", "judge_each", "judge_plan", "signer_of"]


class Rule(NamedTuple):
    """One rule: its function's name is its code."""

    check: Callable[[Case], str]
    holds: str
    """What is true of a plan that the rule allows."""

    @property
    def code(self) -> str:
        """The stable code with which it refuses."""
        return self.check.__name__.replace("_", "-")


RULES: Final = (
    Rule(participation.site_not_in_plan, "the plan names this site"),
    Rule(participation.task_not_allowed, "the task is one that this site takes part in"),
    Rule(participation.purpose_not_allowed, "the purpose is one that this site allows"),
    Rule(participation.too_few_trustees, "this site's trustee opens, together with enough others"),
    Rule(participation.too_few_contributors, "the smallest set is large enough"),
    Rule(vector.codec_out_of_range, "clip, values and words are within this site's ranges"),
    Rule(vector.layout_not_the_models, "the vector carries exactly what the model shares, and known counts"),
    Rule(vector.statistic_not_in_catalogue, "no statistic is asked for but those this site allows"),
    Rule(vector.statistic_without_noise, "no statistic is opened without noise"),
    Rule(training.training_out_of_range, "examples, sessions, batches, steps and rates are within this site's ranges"),
    Rule(training.single_step_gradient, "no single gradient step is asked for, unless noise covers it"),
    Rule(training.model_too_large, "the model is small enough"),
    Rule(training.model_too_slow, "a training step is cheap enough"),
    Rule(lineage.checkpoint_outside_lineage, "the checkpoint is the model's first, or that of the result before"),
    Rule(times.closes_too_late, "the round closes in time"),
    Rule(times.outside_hours, "this is one of this site's hours"),
)
"""In the order in which they are asked."""

SIGNER_HOLDS: Final = "the model is signed by somebody whom this site names, and not by the coordinator"


class Judged(NamedTuple):
    """One rule with its verdict, for a person; `sentence` says why it refuses, or what holds."""

    code: str
    allowed: bool
    sentence: str


def judge_plan(
    plan: CheckedPlan,
    policy: SitePolicy,
    manifest: Signed,
    *,
    own_site: str,
    previous: Signed | None = None,
    now_s: int | None = None,
    local_minute: int | None = None,
) -> Verdict:
    """Judge a verified plan by a site's policy.

    Args:
        plan: signature and bounds already held.
        policy: the site's rules.
        manifest: kind "bundle"; the model's manifest with its author's signature.
        own_site: the site that judges.
        previous: kind "result", which the plan goes on from; a plan of a later round is refused without it.
        now_s: this machine's clock; None where there is none to trust.
        local_minute: the same moment in minutes after local midnight; None as `now_s`.

    Returns:
        The first rule that says no, or allowed, with a note for each rule that could not be judged. Never raises on
        bad input: that is a refusal too.
    """
    try:
        opened = _open_manifest(plan, policy, manifest)
    except BedsideError as error:
        return refused(error.code, error.sentence)
    case = Case(plan, policy, opened, own_site, previous, now_s, local_minute)
    for rule in RULES:
        sentence = rule.check(case)
        if sentence:
            return refused(rule.code, sentence)
    return Verdict(allowed=True, notes=_notes(case))


def judge_each(
    plan: CheckedPlan,
    policy: SitePolicy,
    manifest: Signed,
    *,
    own_site: str,
    previous: Signed | None = None,
    now_s: int | None = None,
    local_minute: int | None = None,
) -> tuple[Judged, ...]:
    """As `judge_plan`, with the verdict of every rule; of the model's signature alone where that does not hold."""
    try:
        opened = _open_manifest(plan, policy, manifest)
    except BedsideError as error:
        return (Judged(error.code, allowed=False, sentence=error.sentence),)
    case = Case(plan, policy, opened, own_site, previous, now_s, local_minute)
    judged = [Judged("unknown-signer", allowed=True, sentence=SIGNER_HOLDS)]
    for rule in RULES:
        sentence = rule.check(case)
        judged.append(Judged(rule.code, allowed=not sentence, sentence=sentence or rule.holds))
    return tuple(judged)


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
        f"no signer that this site allows has signed the model{claimed_signer(manifest.payload)}",
        remedy="add the author's key to bundle_signers in the site's policy, if the author is to be trusted",
    )


def check_signers(policy: SitePolicy, coordinator_pk: bytes) -> None:
    """Refuse a policy that lets the coordinator sign models: who plans must not choose what is computed.

    Raises:
        TrustError: `coordinator-signs-models`.
    """
    for name, key in policy.bundle_signers.items():
        if bytes.fromhex(key) == coordinator_pk:
            raise TrustError(
                "coordinator-signs-models",
                f"bundle_signers.{name[:64]} is the coordinator's key; whoever plans rounds may not sign models",
                remedy="replace it by the key of the model's author",
            )


def _open_manifest(plan: CheckedPlan, policy: SitePolicy, manifest: Signed) -> Manifest:
    check_signers(policy, plan.coordinator_pk)
    signer_of(policy, manifest)
    if digest(manifest.payload) != plan.plan.bundle.digest:
        raise TrustError("other-bundle", "the manifest is not that of the plan's bundle")
    return decode_manifest(manifest.payload)


def _notes(case: Case) -> tuple[str, ...]:
    return (times.HOURS_SKIPPED,) if case.policy.hours and case.local_minute is None else ()
