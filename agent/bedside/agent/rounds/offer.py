"""Judge an offer from its bytes: everything that must hold before this device spends a sample on a plan.

Invariants of a `CheckedOffer`:
    * the federation is signed by the pinned root and names this site with the pinned authority;
    * this device, and every trustee of its cohort, is on a roster that its own site authority signed;
    * the plan is signed by the coordinator that the federation names, and nothing in the offer goes back (rule T8);
    * all trustees of the cohort opened it, the own site's among them, which promises at least the site's `min_trusted`
      and `noise_multiplier`; the own site has no other trustee in the plan, and it is the one that was seen before;
    * the noise of all of them together fits the plan's ring;
    * the site's policy allows the plan.

No IO and no clock: the reference time is a parameter, None where there is none to trust.

Source: DESIGN section 5, step 3 and rules T3, T6, T7, T8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bedside.agent.rounds.memory import Seen
from bedside.core.errors import BedsideError, RefusedError, TrustError
from bedside.core.policy import SitePolicy, judge_plan
from bedside.core.policy.lineage import open_previous
from bedside.core.policy.times import CLOCK_SKEW_S
from bedside.core.privacy.gaussian import ONE_E6
from bedside.core.securesum.messages import CheckedOpening, open_openings
from bedside.core.securesum.plans import CheckedPlan, open_plan
from bedside.core.signing import Trust, VerifiedCredential, open_federation, open_roster
from bedside.core.signing.envelope import open_signed
from bedside.core.signing.trust import authority_of
from bedside.proto.v1.device_pb2 import Offer
from bedside.proto.v1.identity_pb2 import Federation, Role
from bedside.proto.v1.plan_pb2 import PURPOSE_TRAIN

CLOCK_LATE_S: Final = CLOCK_SKEW_S
"""A device's clock that is so far behind the plan's issue was never set, or stood still while the device was off: then
no time is judged but that the plan is not later than the site's own roster, and the trustee, which has a clock, judges
alone."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who judges, and by what.

    Attributes:
        root_pk: pinned key of the federation root, 32 bytes.
        authority_pk: pinned key of the own site's authority, 32 bytes.
        credential: the device's own.
        policy: its site's rules.
        local_minute: makes minutes after local midnight of seconds since 1970; without it, hours are not judged.
    """

    root_pk: bytes
    authority_pk: bytes
    credential: VerifiedCredential
    policy: SitePolicy
    local_minute: Callable[[int], int] | None = None

    @property
    def site(self) -> str:
        """The own site."""
        return self.credential.site


@dataclass(frozen=True, slots=True)
class CheckedOffer:
    """An offer that this device takes.

    Attributes:
        plan: the verified plan.
        cohort: index of the own site's cohort.
        openings: of all its trustees, in the plan's order.
        own: the opening of the own site's trustee.
        seen: what is remembered from now on.
        notes: rules of the policy that this device could not judge, in sentences.
    """

    plan: CheckedPlan
    cohort: int
    openings: Sequence[CheckedOpening]
    own: CheckedOpening
    seen: Seen
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class SignedPlan:
    """The part of an offer that holds before any trustee or policy was asked: who plans, and what."""

    federation: Federation
    plan: CheckedPlan
    seen: Seen


def check_plan(offer: Offer, standing: Standing, seen: Seen, *, now_s: int | None) -> SignedPlan:
    """Verify federation and plan.

    Raises:
        TrustError: `bad-signature`, `federation-rollback`, `other-authority`, `stranger-plan`, `other-federation`,
            `round-rollback`, `round-fork`, `log-rollback`, `log-fork` or `result-fork`.
        MalformedError, ProtocolError: when the plan is out of bounds.
    """
    federation = open_federation(offer.federation, standing.root_pk, min_version=seen.federation_version, now_s=now_s)
    if authority_of(federation, standing.site) != standing.authority_pk:
        raise TrustError(
            "other-authority",
            f"the federation names another authority for site {standing.site} than the one pinned here",
            remedy="compare the authority's key with the federation's root holder; enrol again if it was replaced",
        )
    plan = open_plan(offer.plan, federation.coordinator.sign_pk)
    if plan.plan.federation != federation.federation:
        raise TrustError("other-federation", "the plan is for another federation")
    _check_previous(offer, plan, seen)
    stepped = seen.with_federation(federation.version).with_plan(plan.plan, plan.digest)
    return SignedPlan(federation, plan, stepped)


def check_offer(offer: Offer, signed_plan: SignedPlan, standing: Standing, *, now_s: int | None) -> CheckedOffer:
    """Verify the rest of an offer whose plan was checked.

    Raises:
        TrustError, MalformedError, ProtocolError: a roster, credential or opening does not hold; `other-trustee`.
        RefusedError: `promise-too-small`, `noise-too-small`, `trusts-others`, `purpose-not-known`, or the code of the
            policy's rule.
    """
    plan, seen = signed_plan.plan, signed_plan.seen
    trust, seen = _check_rosters(offer, signed_plan.federation, seen, now_s)
    trust.credential(standing.credential.signed, Role.ROLE_DEVICE, now_s=now_s)
    if plan.plan.issued_at_s > trust.rosters[standing.site].not_after_s:
        raise TrustError("roster-expired", "the plan claims to be of a time at which the site's own roster has expired")
    cohort = plan.cohort_of(standing.site)
    if offer.cohort != cohort:
        raise TrustError("other-cohort", f"the offer is for cohort {offer.cohort}; this site is in cohort {cohort}")
    notes = _judge(plan, offer, standing, now_s)
    openings = open_openings(offer.openings, plan, cohort, trust, now_s=now_s)
    own = own_opening(openings, standing.site)
    _check_single(plan, own, standing.site)
    own_roster = trust.rosters[standing.site].credential_digests
    seen = seen.with_trustee(own.opening.trustee, own.credential.digest, own_roster)
    seen = seen.with_chain(own.opening.trustee, own.opening.chain, own.digest)
    _check_promise(own, standing)
    return CheckedOffer(plan, cohort, openings, own, seen, notes)


def judge_again(offer: Offer, standing: Standing, *, now_s: int | None) -> None:
    """Judge a plan that was taken by the policy as it is now; nothing that was seen since then counts against it.

    Raises:
        RefusedError: as `check_offer`.
        TrustError, MalformedError, ProtocolError: the offer does not hold any more.
    """
    signed_plan = check_plan(offer, standing, Seen(), now_s=None)
    plan = signed_plan.plan
    _judge(plan, offer, standing, now_s)
    trust, _ = _check_rosters(offer, signed_plan.federation, Seen(), None)
    openings = open_openings(offer.openings, plan, plan.cohort_of(standing.site), trust)
    _check_promise(own_opening(openings, standing.site), standing)


def is_signed(offer: Offer, root_pk: bytes) -> bool:
    """Whether a coordinator that the federation's root ever named signed the plan's bytes, whatever they say."""
    try:
        federation = open_federation(offer.federation, root_pk)
        open_signed("plan", offer.plan, federation.coordinator.sign_pk)
    except BedsideError:
        return False
    return True


def own_opening(openings: Sequence[CheckedOpening], site: str) -> CheckedOpening:
    """The opening of the own site's trustee.

    Raises:
        TrustError: `no-own-trustee`.
    """
    for opening in openings:
        if opening.credential.site == site:
            return opening
    raise TrustError(
        "no-own-trustee",
        f"no trustee of site {site} opened this round; trustees of other sites are not enough",
        remedy="the plan must name this site's trustee",
    )


def _check_single(plan: CheckedPlan, own: CheckedOpening, site: str) -> None:
    """No other trustee speaks for the own site, in whatever cohort."""
    trustees = (trustee for cohort in plan.plan.cohorts for trustee in cohort.trustees)
    if any(trustee.site == site and trustee.credential_digest != own.credential.digest for trustee in trustees):
        raise TrustError(
            "other-trustee",
            f"the plan names two trustees of site {site}; a site has one",
            remedy="ask the site's admin who enrolled the other, and revoke it",
        )


def _judge(plan: CheckedPlan, offer: Offer, standing: Standing, now_s: int | None) -> tuple[str, ...]:
    """Rule T7, and what this version of a device can work for."""
    trusted_s = now_s if now_s is not None and now_s >= plan.plan.issued_at_s - CLOCK_LATE_S else None
    verdict = judge_plan(
        plan,
        standing.policy,
        offer.manifest,
        own_site=standing.site,
        previous=offer.previous_result if offer.HasField("previous_result") else None,
        now_s=trusted_s,
        local_minute=standing.local_minute(trusted_s) if standing.local_minute and trusted_s is not None else None,
    )
    if not verdict.allowed:
        raise RefusedError(verdict.code, verdict.sentence)
    if plan.plan.purpose != PURPOSE_TRAIN:
        raise RefusedError("purpose-not-known", "devices of this version take part in training rounds only")
    return verdict.notes


def _check_previous(offer: Offer, plan: CheckedPlan, seen: Seen) -> None:
    """The coordinator's word on the last round is about the plan that this device saw in it.

    A result that does not hold at all is refused with the lineage, by the policy's rules.
    """
    last = seen.rounds.get(plan.plan.task)
    try:
        result = open_previous(plan, offer.previous_result)
    except BedsideError:
        return
    if last is None or result is None or result.round_number != last.round_number:
        return
    if result.plan_digest != last.plan_digest:
        raise TrustError(
            "result-fork",
            f"the result of round {result.round_number} of {plan.plan.task} is of another plan than this device saw",
            remedy="keep both as evidence and ask who runs the coordinator",
        )


def _check_rosters(offer: Offer, federation: Federation, seen: Seen, now_s: int | None) -> tuple[Trust, Seen]:
    rosters = []
    for signed in offer.rosters:
        roster = open_roster(signed, federation, now_s=now_s)
        known = seen.rosters.get(roster.site, 0)
        if roster.version < known:
            raise TrustError(
                "roster-rollback",
                f"the roster of {roster.site} went back to version {roster.version}; {known} was seen before",
            )
        seen = seen.with_roster(roster.site, roster.version)
        rosters.append(roster)
    return Trust(federation, rosters), seen


def _check_promise(own: CheckedOpening, standing: Standing) -> None:
    opening, policy = own.opening, standing.policy
    if opening.min_trusted < policy.min_trusted:
        raise RefusedError(
            "promise-too-small",
            f"the trustee of site {standing.site} promises sets with {opening.min_trusted} trusted devices;"
            f" this device asks for {policy.min_trusted}",
            remedy="give the trustee and the devices of a site the same policy",
        )
    if opening.noise_multiplier_e6 < policy.noise_multiplier_e6:
        promised = opening.noise_multiplier_e6 / ONE_E6
        raise RefusedError(
            "noise-too-small",
            f"the trustee of site {standing.site} promises a noise multiplier of {promised:g};"
            f" this device asks for {policy.noise_multiplier:g}",
            remedy="give the trustee and the devices of a site the same policy",
        )
    strangers = set(opening.trusted_sites) - {standing.site, *policy.trusted_sites}
    if strangers:
        raise RefusedError(
            "trusts-others",
            f"the trustee of site {standing.site} counts devices of {', '.join(sorted(strangers))[:120]},"
            " which this device's policy does not trust",
            remedy="give the trustee and the devices of a site the same policy",
        )
