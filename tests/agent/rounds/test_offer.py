"""What a device takes, and each reason for which it does not."""

import pytest

from bedside.agent.rounds.memory import ChainPoint, RoundPoint, Seen, TrusteePin
from bedside.agent.rounds.offer import check_offer, check_plan
from bedside.core.signing.envelope import digest, sign_message
from bedside.proto.v1.identity_pb2 import ROLE_TRUSTEE
from bedside.proto.v1.plan_pb2 import Cohort, CohortTrustee

NOW_S = 1_800_000_100
D = b"d" * 32


def judge(offer, standing, seen=None, now_s=NOW_S):
    signed_plan = check_plan(offer, standing, seen or Seen(), now_s=now_s)
    return check_offer(offer, signed_plan, standing, now_s=now_s)


def test_a_good_offer_is_taken_and_remembered(offering) -> None:
    offer = offering.make(log_size=4)
    checked = judge(offer, offering.standing())
    seen = checked.seen
    assert seen.rounds == {"watch": RoundPoint(1, digest(offer.plan.payload))}
    assert (seen.federation_version, seen.log_size, seen.rosters) == (1, 4, {"alder": 1, "birch": 1, "cedar": 1})
    assert seen.chains == {checked.own.opening.trustee: ChainPoint(1, checked.own.digest)}
    assert judge(offer, offering.standing(), seen).seen == seen


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (Seen(federation_version=2), "federation-rollback"),
        (Seen(rounds={"watch": RoundPoint(2, D)}), "round-rollback"),
        (Seen(rounds={"watch": RoundPoint(1, D)}), "round-fork"),
        (Seen(log_size=5, log_root=D), "log-rollback"),
        (Seen(log_size=4, log_root=D), "log-fork"),
        (Seen(rosters={"birch": 2}), "roster-rollback"),
    ],
)
def test_nothing_goes_back_and_nothing_forks(offering, refusal, seen, code) -> None:
    offer = offering.make(log_size=4)
    assert refusal(lambda: judge(offer, offering.standing(), seen)) == code


@pytest.mark.parametrize(("index", "code"), [(2, "chain-rollback"), (1, "chain-fork")])
def test_the_own_trustees_chain_neither_goes_back_nor_forks(offering, refusal, index, code) -> None:
    trustee = offering.world.sites["alder"].trustee.credential.credential.subject
    seen = Seen(chains={trustee: ChainPoint(index, D)})
    assert refusal(lambda: judge(offering.make(), offering.standing(), seen)) == code


def test_the_next_link_must_follow_the_one_seen(offering, refusal) -> None:
    from bedside.proto.v1.round_pb2 import Chain

    trustee = offering.world.sites["alder"].trustee.credential.credential.subject
    seen = Seen(chains={trustee: ChainPoint(4, D)})
    plan = offering.plan()
    site = offering.world.sites["alder"]

    def offer(previous):
        openings, secrets = offering.world.open_round(plan)
        message = offering.world.opening_message(plan, site, secrets["alder"])
        message.chain.CopyFrom(Chain(boot_id=b"b" * 16, index=5, previous_digest=previous))
        made = offering.offer(plan, openings)
        made.openings[0].opening.CopyFrom(sign_message("opening", message, site.trustee.key))
        return made

    assert refusal(lambda: judge(offer(b"x" * 32), offering.standing(), seen)) == "chain-fork"
    assert judge(offer(D), offering.standing(), seen).seen.chains[trustee].index == 5


def test_a_strangers_plan_is_refused(offering, refusal) -> None:
    offer = offering.make()
    offer.plan.CopyFrom(sign_message("plan", offering.plan().plan, offering.world.new_key()))
    assert refusal(lambda: judge(offer, offering.standing())) == "stranger-plan"


def test_a_federation_with_another_authority_for_the_own_site_is_refused(offering, refusal) -> None:
    offer = offering.make()
    offering.world.federation.sites[0].authority_pk = bytes(offering.world.new_key().verify_key)
    offer.federation.CopyFrom(sign_message("federation", offering.world.federation, offering.world.root))
    assert refusal(lambda: judge(offer, offering.standing())) == "other-authority"


def test_a_federation_that_the_pinned_root_did_not_sign_is_refused(offering, refusal) -> None:
    offer = offering.make()
    offer.federation.CopyFrom(sign_message("federation", offering.world.federation, offering.world.new_key()))
    assert refusal(lambda: judge(offer, offering.standing())) == "bad-signature"


def test_a_plan_for_another_federation_is_refused(offering, refusal) -> None:
    assert refusal(lambda: judge(offering.make(federation="elsewhere"), offering.standing())) == "other-federation"


def test_a_round_without_the_own_trustee_is_refused(offering, refusal) -> None:
    cohort = offering.plan().plan.cohorts[0]
    del cohort.trustees[0]
    assert refusal(lambda: judge(offering.make(cohorts=[cohort]), offering.standing())) == "too-few-trustees"


def test_the_own_trustees_opening_is_not_replaced_by_those_of_others(offering, refusal) -> None:
    offer = offering.make()
    del offer.openings[0]
    assert refusal(lambda: judge(offer, offering.standing())).startswith("opening")


def test_the_own_opening_is_looked_for_by_its_site(offering, refusal) -> None:
    from bedside.agent.rounds.offer import own_opening

    _, openings, _ = offering.open()
    assert own_opening(openings, "birch").credential.site == "birch"
    assert refusal(lambda: own_opening(openings[1:], "alder")) == "no-own-trustee"


def second_trustee(offering):
    """Another trustee of the own site, with a credential by the site's own authority."""
    return offering.world.enrol("alder", offering.world.sites["alder"].authority, ROLE_TRUSTEE)


def pin_of(party) -> TrusteePin:
    return TrusteePin(party.credential.credential.subject, party.credential.digest)


def test_the_own_trustee_is_pinned_when_it_is_first_seen(offering) -> None:
    seen = judge(offering.make(), offering.standing()).seen
    assert seen.trustee == pin_of(offering.world.sites["alder"].trustee)


def test_another_trustee_is_refused_until_the_own_roster_no_longer_lists_the_one_that_was_seen(
    offering, refusal
) -> None:
    site = offering.world.sites["alder"]
    first, site.trustee = site.trustee, second_trustee(offering)
    seen = Seen(trustee=pin_of(first))
    offer = offering.make()
    judge(offer, offering.standing(), seen)
    roster = offering.world.roster(site)
    roster.credential_digests[:] = sorted([*roster.credential_digests, first.credential.digest])
    offer.rosters[0].CopyFrom(sign_message("roster", roster, site.authority))
    assert refusal(lambda: judge(offer, offering.standing(), seen)) == "other-trustee"


def test_a_trustee_that_was_replaced_does_not_come_back(offering, refusal) -> None:
    site = offering.world.sites["alder"]
    second = second_trustee(offering)
    offer = offering.make()
    roster = offering.world.roster(site)
    roster.credential_digests[:] = sorted([*roster.credential_digests, second.credential.digest])
    offer.rosters[0].CopyFrom(sign_message("roster", roster, site.authority))
    assert refusal(lambda: judge(offer, offering.standing(), Seen(trustee=pin_of(second)))) == "other-trustee"


def test_a_plan_with_two_trustees_of_the_own_site_is_refused(offering, refusal) -> None:
    twin = CohortTrustee(site="alder", credential_digest=second_trustee(offering).credential.digest)
    elsewhere = Cohort(index=1, sites=["dale"], trustees=[twin])
    offer = offering.make(cohorts=[*offering.plan().plan.cohorts, elsewhere])
    assert refusal(lambda: judge(offer, offering.standing())) == "other-trustee"


def test_a_promise_below_the_devices_policy_is_refused(offering, refusal) -> None:
    assert refusal(lambda: judge(offering.make(), offering.standing(min_trusted=4))) == "promise-too-small"


def test_a_trustee_that_counts_devices_of_strangers_is_refused(offering, refusal) -> None:
    offer = offering.make()
    assert refusal(lambda: judge(offer, offering.standing(trusted_sites=("birch",)))) == "trusts-others"


def test_an_offer_for_another_cohort_is_refused(offering, refusal) -> None:
    offer = offering.make()
    offer.cohort = 1
    assert refusal(lambda: judge(offer, offering.standing())) == "other-cohort"


def test_a_device_that_is_not_on_its_roster_stays_out(offering, refusal) -> None:
    offer = offering.make()
    site = offering.world.sites["alder"]
    roster = offering.world.roster(site, without=[site.devices[0]])
    offer.rosters[0].CopyFrom(sign_message("roster", roster, site.authority))
    assert refusal(lambda: judge(offer, offering.standing())) == "not-on-roster"


def test_a_model_by_an_unlisted_author_is_refused(offering, refusal) -> None:
    signers = {"other": bytes(offering.world.new_key().verify_key).hex()}
    assert refusal(lambda: judge(offering.make(), offering.standing(bundle_signers=signers))) == "unknown-signer"


def test_the_sites_policy_wins(offering, refusal) -> None:
    assert refusal(lambda: judge(offering.make(), offering.standing(tasks=("other",)))) == "task-not-allowed"


def test_a_closed_round_is_refused_where_there_is_a_clock(offering, refusal) -> None:
    offer = offering.make()
    late_s = 1_800_000_601
    assert refusal(lambda: judge(offer, offering.standing(), now_s=late_s)) == "closes-too-late"
    judge(offer, offering.standing(), now_s=None)


@pytest.mark.parametrize("now_s", [NOW_S, None])
def test_a_plan_of_a_time_after_the_own_rosters_end_is_refused_with_and_without_a_clock(
    offering, refusal, now_s
) -> None:
    far_s = 2 * 1_800_000_000 + 1
    offer = offering.make(issued_at_s=far_s, close_at_s=far_s + 600)
    assert refusal(lambda: judge(offer, offering.standing(), now_s=now_s)) == "roster-expired"


def test_an_own_trustee_that_promises_less_noise_than_the_sites_policy_is_refused(offering, refusal) -> None:
    wide = {"word_bits": 32}
    quiet = offering.with_changes(plan_changes=wide, opening_changes={"noise_multiplier_e6": 999_999})
    assert refusal(lambda: judge(quiet.make(), offering.standing(noise_multiplier=1.0))) == "noise-too-small"
    loud = offering.with_changes(plan_changes=wide, opening_changes={"noise_multiplier_e6": 1_000_000})
    judge(loud.make(), offering.standing(noise_multiplier=1.0))
    judge(quiet.make(), offering.standing())


def test_openings_whose_noise_does_not_fit_the_ring_are_refused(offering, refusal) -> None:
    loud = offering.with_changes(opening_changes={"noise_multiplier_e6": 1_000_000})
    assert refusal(lambda: judge(loud.make(), offering.standing())) == "ring-overflow"
    judge(loud.make(word_bits=32), offering.standing())
