"""A malicious coordinator lies about rounds: to trustees that open them, and to devices that take them."""

from __future__ import annotations

from attack_cases import Attempt, attack
from attack_field import NOW_S, Field
from guard_switch import Guard, Instead, without
from known_guards import EXPIRY, ROSTER, SIGNATURE

from bedside.agent.rounds import memory, offer
from bedside.agent.rounds.memory import ChainPoint, RoundPoint, Seen, TrusteePin
from bedside.agent.rounds.receipts import check_receipt
from bedside.core.policy import judge
from bedside.core.securesum import keys, messages
from bedside.core.securesum.merkle import check_membership, prove_membership
from bedside.core.securesum.trustee import leaves_of
from bedside.core.signing import envelope, trust
from bedside.core.signing.envelope import digest, sign_message
from bedside.proto.v1 import plan_pb2, round_pb2
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import ROLE_TRUSTEE
from bedside.trustee.duty import Duty
from bedside.trustee.store import check_floor

ROLLBACK, FORK = Guard(check_floor, "-rollback"), Guard(check_floor, "-fork")
VERSION = Guard(trust._check_version, "-rollback")
STILL_OPEN = Guard(Duty._progress, "round-still-open")
TWIN = Guard(offer._check_single, "other-trustee")
BEHIND = b"d" * 32

# Trustees


@attack("T4", "round-still-open", STILL_OPEN)
def a_second_plan_while_the_first_is_open(field: Field) -> Attempt:
    field.begin()
    return lambda: field.open(field.next_plan())


@attack("T4", "round-number-fork", FORK)
def an_expired_round_collected_again_without_one_device(field: Field) -> Attempt:
    """The round was answered; the coordinator says it had expired, and plans the same round number again."""
    bench, begun = field.bench(), field.begin()
    field.reveal(begun, bench.others_vote(begun, field.seal(begun)))
    return lambda: field.open(field.plan(min_contributors=4))


@attack("T4", "round-number-rollback", ROLLBACK)
def a_stale_round_number_to_a_trustee(field: Field) -> Attempt:
    field.bench().close(field.begin(field.plan(round_number=5, previous_result_digest=b"r" * 32)))
    return lambda: field.open(field.plan(round_number=4, previous_result_digest=b"r" * 32))


@attack("T8", "log-size-rollback", ROLLBACK)
def a_shorter_log_to_a_trustee(field: Field) -> Attempt:
    field.bench().close(field.begin(field.plan(log_size=9)))
    return lambda: field.open(field.next_plan(log_size=8))


@attack("T8", "log-size-fork", FORK)
def a_split_view_of_the_log_to_a_trustee(field: Field) -> Attempt:
    field.bench().close(field.begin(field.plan(log_size=9)))
    return lambda: field.open(field.next_plan(log_size=9, log_root=b"x" * 32))


@attack("T8", "roster-rollback", ROLLBACK)
def a_stale_roster_to_a_trustee(field: Field) -> Attempt:
    """The device that was revoked in version 5 would be back."""
    field.open(field.plan(task="first"), rosters=field.rosters(versions={"birch": 5}))
    return lambda: field.open(field.plan(), rosters=field.rosters(versions={"birch": 4}))


@attack("T8", "federation-rollback", VERSION)
def a_stale_federation_to_a_trustee(field: Field) -> Attempt:
    field.bench()
    field.world.federation.version = 3
    field.open(field.plan(task="first"))
    field.world.federation.version = 2
    return lambda: field.open(field.plan())


@attack("T7", "stranger-plan", SIGNATURE)
def a_plan_of_a_stranger_to_a_trustee(field: Field) -> Attempt:
    plan = field.plan()
    request = field.bench().open_request(plan)
    request.plan.CopyFrom(sign_message("plan", plan.plan, field.world.author))
    return lambda: field.bench().duty.open(request)


@attack("T7", "not-a-trustee", Guard(Duty._open_fresh, "not-a-trustee"), without("too-few-trustees"))
def a_plan_that_names_others_only(field: Field) -> Attempt:
    cohort = plan_pb2.Cohort()
    cohort.CopyFrom(field.plan().plan.cohorts[0])
    del cohort.trustees[0]
    return lambda: field.open(field.plan(cohorts=[cohort]))


@attack("T6", "not-on-roster", Guard(Duty._open_fresh, "not-on-roster"))
def a_plan_with_a_revoked_trustee(field: Field) -> Attempt:
    gone = field.world.sites["birch"].trustee
    return lambda: field.open(field.plan(), rosters=field.rosters(without=[gone]))


@attack("T6", "roster-expired", EXPIRY)
def a_roster_that_ran_out(field: Field) -> Attempt:
    bench = field.bench()
    bench.clock.now_s = 2 * NOW_S + 1
    late = {"issued_at_s": bench.clock.now_s, "close_at_s": bench.clock.now_s + 60}
    return lambda: field.open(field.plan(**late))


# Devices: the offer


def _seen(name: str, rule: str, code: str, seen: Seen, *guards: Guard) -> None:
    """A device that has seen more than the offer shows."""

    def prepare(field: Field) -> Attempt:
        plan = field.plan(log_size=4)
        openings, _ = field.world.open_round(plan)
        return lambda: field.take(field.offer(plan, openings), seen)

    prepare.__name__ = name
    attack(rule, code, *guards)(prepare)


_WITH_PLAN = memory.Seen.with_plan
_seen("a_stale_round_number_to_a_device", "T8", "round-rollback", Seen(rounds={"watch": RoundPoint(2, BEHIND)}),
      Guard(_WITH_PLAN, "round"))  # fmt: skip
_seen("another_plan_of_the_same_round_to_a_device", "T8", "round-fork", Seen(rounds={"watch": RoundPoint(1, BEHIND)}),
      Guard(_WITH_PLAN, "round"))  # fmt: skip
_seen("a_shorter_log_to_a_device", "T8", "log-rollback", Seen(log_size=5, log_root=BEHIND),
      Guard(_WITH_PLAN, "log"))  # fmt: skip
_seen("a_split_view_of_the_log_to_a_device", "T8", "log-fork", Seen(log_size=4, log_root=BEHIND),
      Guard(_WITH_PLAN, "log"))  # fmt: skip
_seen("a_stale_roster_to_a_device", "T8", "roster-rollback", Seen(rosters={"birch": 2}),
      Guard(offer._check_rosters, "roster-rollback"))  # fmt: skip
_seen("a_stale_federation_to_a_device", "T8", "federation-rollback", Seen(federation_version=2), VERSION)


@attack("T6", "chain-rollback", Guard(memory.Seen.with_link, "chain"))
def a_trustee_whose_chain_went_back(field: Field) -> Attempt:
    """The own trustee was restored from a backup: it opens at a link that its device has seen long ago."""
    plan = field.plan()
    openings, _ = field.world.open_round(plan)
    seen = Seen(chains={openings[0].opening.trustee: ChainPoint(7, BEHIND)})
    return lambda: field.take(field.offer(plan, openings), seen)


@attack("T6", "chain-fork", Guard(memory.Seen.with_chain, "chain"))
def a_trustee_whose_chain_forked(field: Field) -> Attempt:
    plan, alder = field.plan(), field.world.sites["alder"]
    openings, secrets = field.world.open_round(plan)
    told = field.world.opening_message(plan, alder, secrets["alder"])
    told.chain.CopyFrom(round_pb2.Chain(boot_id=b"b" * 16, index=8, previous_digest=b"x" * 32))
    forked = sign_message("opening", told, alder.trustee.key)
    made = field.offer(plan, openings)
    made.openings[0].opening.CopyFrom(forked)
    seen = Seen(chains={told.trustee: ChainPoint(7, BEHIND)})
    return lambda: field.take(made, seen)


@attack("T1", "other-plan", Guard(messages._open, "other-plan"))
def a_plan_swapped_between_devices(field: Field) -> Attempt:
    """One device is shown the plan that its trustee opened, another one a plan with the same openings."""
    openings, _ = field.world.open_round(field.plan())
    swapped = field.plan(task="swapped")
    return lambda: field.take(field.offer(swapped, openings))


@attack("T7", "other-cohort", Guard(offer.check_offer, "other-cohort"))
def an_offer_that_puts_a_device_into_another_cohort(field: Field) -> Attempt:
    plan = field.plan()
    openings, _ = field.world.open_round(plan)
    return lambda: field.take(field.offer(plan, openings, cohort=1))


@attack("T7", "other-bundle", Guard(judge._open_manifest, "other-bundle"))
def a_model_for_this_device_alone(field: Field) -> Attempt:
    """Signed by the author, but not the one that the plan names: everybody else trains another."""
    bench = field.bench()
    plan = field.plan()
    openings, _ = field.world.open_round(plan)
    payload = bench.manifest.payload.replace(b'"version":"1"', b'"version":"2"')
    assert payload != bench.manifest.payload
    other = Signed.FromString(envelope.sign("bundle", payload, field.world.author))
    return lambda: field.take(field.offer(plan, openings, manifest=other))


@attack(
    "T1",
    "openings-incomplete",
    Guard(messages.open_openings, "openings-incomplete"),
    Instead(offer, "own_opening", lambda openings, _: openings[0]),
    TWIN,
)
def a_round_without_the_own_trustees_opening(field: Field) -> Attempt:
    plan = field.plan()
    openings, _ = field.world.open_round(plan)
    return lambda: _last_two(field, plan, openings)


@attack("T8", "other-trustee", Guard(Seen.with_trustee, "other-trustee"))
def a_second_trustee_that_the_site_was_talked_into_listing(field: Field) -> Attempt:
    site = field.world.sites["alder"]
    first, second = site.trustee, field.world.enrol("alder", site.authority, ROLE_TRUSTEE)
    site.trustee = second
    plan = field.plan()
    openings, _ = field.world.open_round(plan)
    made = field.offer(plan, openings)
    roster = field.world.roster(site, version=2)
    roster.credential_digests[:] = sorted([*roster.credential_digests, first.credential.digest])
    made.rosters[0].CopyFrom(sign_message("roster", roster, site.authority))
    known = Seen(trustee=TrusteePin(first.credential.credential.subject, first.credential.digest))
    return lambda: field.take(made, known)


def _last_two(field: Field, plan, openings) -> object:
    made = field.offer(plan, openings)
    del made.openings[0]
    return field.take(made)


@attack("T1", "repeated-round-key", Guard(messages.open_openings, "repeated-round-key"))
def a_trustee_that_publishes_another_ones_round_key(field: Field) -> Attempt:
    plan, birch = field.plan(), field.world.sites["birch"]
    openings, secrets = field.world.open_round(plan)
    copied = sign_message("opening", field.world.opening_message(plan, birch, secrets["alder"]), birch.trustee.key)
    made = field.offer(plan, openings)
    made.openings[1].opening.CopyFrom(copied)
    return lambda: field.take(made)


@attack("T1", "bad-round-key", Instead(keys, "_exchange", lambda *_: bytes(32)))
def a_round_key_of_low_order(field: Field) -> Attempt:
    """A trustee in league with the coordinator would make its half of every mask known; the device notices."""
    plan, birch, device = field.plan(), field.world.sites["birch"], field.world.devices[0]
    openings, secrets = field.world.open_round(plan)
    told = field.world.opening_message(plan, birch, secrets["birch"], x25519_pk=bytes(32))
    signed = sign_message("opening", told, birch.trustee.key)
    openings[1] = messages.open_opening(signed, birch.trustee.credential, plan, 0)
    return lambda: field.entry(plan, openings, device)


@attack("T3", "bad-signature", SIGNATURE, ROSTER)
def a_trustee_that_the_coordinator_made_up(field: Field) -> Attempt:
    """The one attack that would open everything: an own trustee whose key the coordinator holds."""
    alder, plan = field.world.sites["alder"], field.plan()
    _openings, _ = field.world.open_round(plan)
    fake = field.enrol("alder", authority=field.world.coordinator, role=ROLE_TRUSTEE)
    real, alder.trustee = alder.trustee, fake
    forged_plan = field.world.plan(**field.bench().fields)
    forged, _ = field.world.open_round(forged_plan)
    alder.trustee = real
    return lambda: field.take(field.offer(forged_plan, forged))


@attack("T6", "not-on-roster", ROSTER)
def an_offer_with_a_revoked_trustee(field: Field) -> Attempt:
    plan = field.plan()
    openings, _ = field.world.open_round(plan)
    rosters = field.rosters(without=[field.world.sites["birch"].trustee])
    return lambda: field.take(field.offer(plan, openings, rosters=rosters))


@attack("T6", "credential-expired", EXPIRY)
def an_offer_with_an_expired_trustee(field: Field) -> Attempt:
    birch = field.world.sites["birch"]
    birch.trustee = field.enrol("birch", role=ROLE_TRUSTEE, not_after_s=NOW_S + 50)
    plan = field.plan()
    openings, _ = field.world.open_round(plan)
    return lambda: field.take(field.offer(plan, openings))


@attack("T6", "not-on-roster", ROSTER)
def an_offer_to_a_device_that_was_revoked(field: Field) -> Attempt:
    """Rosters reach a device through the coordinator; it believes its own site's signature on them."""
    plan = field.plan()
    openings, _ = field.world.open_round(plan)
    alder = field.world.sites["alder"]
    revoked = sign_message("roster", field.world.roster(alder, without=alder.devices[:1], version=2), alder.authority)
    rosters = [revoked, *field.rosters()[1:]]
    return lambda: field.take(field.offer(plan, openings, rosters=rosters))


@attack("T6", "credential-expired", EXPIRY)
def an_offer_to_a_device_whose_credential_ran_out(field: Field) -> Attempt:
    field.world.sites["alder"].devices[0] = field.enrol("alder", not_after_s=NOW_S + 50)
    plan = field.plan()
    openings, _ = field.world.open_round(plan)
    return lambda: field.take(field.offer(plan, openings))


@attack("T3", "promise-too-small", Guard(offer._check_promise, "promise-too-small"))
def a_promise_below_the_devices_policy(field: Field) -> Attempt:
    plan = field.plan()
    openings, _ = field.world.open_round(plan, min_trusted=1)
    return lambda: field.take(field.offer(plan, openings))


@attack("T3", "trusts-others", Guard(offer._check_promise, "trusts-others"))
def a_promise_that_counts_strangers(field: Field) -> Attempt:
    plan = field.plan()
    openings, _ = field.world.open_round(plan, trusted_sites=["birch", "cedar", "oak"])
    return lambda: field.take(field.offer(plan, openings))


# Devices: the receipt


def _receipt_of(field: Field, begun, signed, entries, device) -> round_pb2.Receipt:
    leaves = leaves_of(field.world.header_set(entries))
    proof = prove_membership(leaves, device.credential.digest)
    return round_pb2.Receipt(plan_digest=begun.plan.digest, answer=signed, membership=proof)


def _check(field: Field, begun, receipt: round_pb2.Receipt, seen: Seen | None = None) -> object:
    made = field.offer(begun.plan, begun.openings)
    mine = digest(begun.entries[0].header.payload)
    return check_receipt(receipt, made, field.standing(), seen or Seen(), header_digest=mine)


@attack("T1", "bad-signature", SIGNATURE)
def burned_in_the_coordinators_own_words(field: Field) -> Attempt:
    """`Your round has expired, send it again`: the device would encode its delta a second time."""
    begun = field.begin()
    told = round_pb2.Closed(
        suite=1,
        plan_digest=begun.plan.digest,
        credential_digest=begun.openings[0].credential.digest,
        reason=round_pb2.CLOSE_REASON_BURNED,
        chain=round_pb2.Chain(boot_id=b"b" * 16, index=9, previous_digest=BEHIND),
    )
    forged = round_pb2.Receipt(
        plan_digest=begun.plan.digest, closed=sign_message("closed", told, field.world.coordinator)
    )
    return lambda: _check(field, begun, forged)


@attack("T1", "bad-signature", SIGNATURE, Guard(messages._open, "wrong-sender"))
def burned_by_another_sites_trustee(field: Field) -> Attempt:
    begun, birch = field.begin(), field.world.sites["birch"].trustee
    told = round_pb2.Closed(
        suite=1,
        plan_digest=begun.plan.digest,
        credential_digest=birch.credential.digest,
        reason=round_pb2.CLOSE_REASON_BURNED,
        chain=round_pb2.Chain(boot_id=b"b" * 16, index=9, previous_digest=BEHIND),
    )
    told_receipt = round_pb2.Receipt(plan_digest=begun.plan.digest, closed=sign_message("closed", told, birch.key))
    return lambda: _check(field, begun, told_receipt)


@attack("T1", "bad-membership-proof", Guard(check_membership, "_bad_proof"))
def left_out_with_a_proof_of_another_set(field: Field) -> Attempt:
    """The set holds the device; the proof of absence is that of the set without it."""
    bench, begun = field.bench(), field.begin()
    answer = field.reveal(begun, bench.others_vote(begun, field.seal(begun)))
    device = field.world.devices[0]
    lie = _receipt_of(field, begun, answer.signed, begun.entries[1:], device)
    return lambda: _check(field, begun, lie)


@attack("T1", "other-plan", Guard(messages._open, "other-plan"))
def the_burned_word_of_another_round(field: Field) -> Attempt:
    bench = field.bench()
    earlier = bench.close(field.begin())
    begun = field.begin(field.next_plan())
    field.reveal(begun, bench.others_vote(begun, field.seal(begun)))
    lie = round_pb2.Receipt(plan_digest=begun.plan.digest, closed=earlier.signed)
    return lambda: _check(field, begun, lie)


@attack("T6", "chain-fork", Guard(memory.Seen.with_link, "chain"))
def burned_after_the_device_saw_another_word_at_that_link(field: Field) -> Attempt:
    """The trustee was restored with its RAM, and its device has seen the vote that it forgot."""
    begun = field.begin()
    restore = field.snapshot(ram=True)
    vote = field.seal(begun)
    restore()
    burned = field.burned(begun)
    subject = begun.openings[0].opening.trustee
    seen = Seen(chains={subject: ChainPoint(2, digest(vote.signed.payload))})
    lie = round_pb2.Receipt(plan_digest=begun.plan.digest, closed=burned.signed)
    return lambda: _check(field, begun, lie, seen)
