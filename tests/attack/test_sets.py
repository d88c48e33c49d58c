"""A malicious coordinator puts together sets; each attempt is refused with its code, and nothing is released."""

from __future__ import annotations

import pytest

from bedside.core.errors import BedsideError
from bedside.core.securesum.trustee import TRUSTEE, TrusteeInput, TrusteeState, judge_set, open_votes
from bedside.core.signing.envelope import SUITE, digest, sign_message
from bedside.proto.v1 import round_pb2
from bedside.proto.v1.trustee_pb2 import HeaderEntry, HeaderSet


@pytest.fixture
def case(world):
    class Case:
        plan = world.plan()

        def __init__(self):
            self.openings, self.secrets = world.open_round(self.plan)
            self.entries = [self.entry(device) for device in world.devices]

        def entry(self, device, plan=None, openings=None):
            plan, openings = plan or self.plan, openings or self.openings
            return world.contribute(plan, openings, device, world.random_words(plan, 7))[0]

        def judge(self, entries, *, trust=None, headers=None):
            return judge_set(
                self.plan,
                0,
                self.openings,
                headers or world.header_set(entries),
                trust or world.trust(),
                self.openings[0],
                self.secrets["alder"],
            )

        def refusal(self, *args, **kwargs):
            with pytest.raises(BedsideError) as caught:
                self.judge(*args, **kwargs)
            return caught.value.code

    return Case()


def test_the_honest_set_is_accepted(case):
    checked = case.judge(case.entries)
    assert len(checked.members) == 8
    assert (checked.own_size, checked.trusted_size) == (3, 8)


def test_a_device_stands_only_once_in_a_set(case):
    twice = HeaderSet(entries=sorted([*case.entries, case.entries[0]], key=lambda e: digest(e.credential.payload)))
    assert case.refusal([], headers=twice) == "set-order"


def test_two_headers_of_one_device_cannot_both_be_in_the_set(case, world):
    assert case.refusal([*case.entries, case.entry(world.devices[0])]) == "set-order"


def test_a_sybil_without_the_sites_countersignature_is_refused(case, world):
    sybil = world.enrol("alder", world.new_key())
    assert case.refusal([*case.entries, case.entry(sybil)]) == "bad-signature"


def test_a_device_that_the_roster_does_not_list_is_refused(case, world):
    gone = world.trust(without=[world.devices[0]])
    assert case.refusal(case.entries, trust=gone) == "not-on-roster"


def test_a_trustee_cannot_pose_as_a_device(case, world):
    assert case.refusal([*case.entries[1:], case.entry(world.sites["birch"].trustee)]) == "wrong-role"


def test_a_header_of_another_plan_is_refused(case, world):
    other = world.plan(task="other")
    openings, _ = world.open_round(other)
    assert case.refusal([case.entry(world.devices[0], other, openings), *case.entries[1:]]) == "other-plan"


def test_a_header_made_for_other_openings_is_refused(case, world):
    again, _ = world.open_round(case.plan)
    assert case.refusal([case.entry(world.devices[0], None, again), *case.entries[1:]]) == "other-openings"


def test_a_header_under_another_devices_name_is_refused(case, world):
    stolen = HeaderEntry(header=case.entries[0].header, credential=case.entries[1].credential)
    assert case.refusal([stolen, *case.entries[2:]]) == "bad-signature"


def test_a_copied_ephemeral_key_fails_its_confirmation_tag(case, world):
    victim = round_pb2.Header.FromString(case.entries[0].header.payload)
    attacker = world.devices[4]
    copied = round_pb2.Header()
    copied.CopyFrom(victim)
    copied.credential_digest = attacker.credential.digest
    copied.site = attacker.credential.site
    forged = HeaderEntry(header=sign_message("header", copied, attacker.key), credential=attacker.credential.signed)
    rest = [e for e in case.entries if e.credential != attacker.credential.signed]
    assert case.refusal([forged, *rest]) == "bad-tag"


def test_too_few_trusted_devices_around_an_own_one_are_refused(case, world):
    openings, secrets = world.open_round(case.plan, trusted_sites=["alder"])
    entries = [
        world.contribute(case.plan, openings, d, world.random_words(case.plan, 1))[0]
        for d in (world.devices[0], *world.sites["birch"].devices, *world.sites["cedar"].devices)
    ]
    with pytest.raises(BedsideError) as caught:
        judge_set(
            case.plan,
            0,
            openings,
            world.header_set(entries),
            world.trust(),
            openings[0],
            secrets["alder"],
        )
    assert caught.value.code == "min-trusted"
    assert "asks for 3 devices" in caught.value.sentence


def test_a_set_without_own_devices_needs_no_trusted_ones(case, world):
    openings, secrets = world.open_round(case.plan, trusted_sites=["alder"])
    entries = [
        world.contribute(case.plan, openings, d, world.random_words(case.plan, 1))[0]
        for d in (*world.sites["birch"].devices, *world.sites["cedar"].devices)
    ]
    checked = judge_set(case.plan, 0, openings, world.header_set(entries), world.trust(), openings[0], secrets["alder"])
    assert (checked.own_size, checked.trusted_size) == (0, 0)


def test_a_set_below_the_plans_minimum_is_refused(case):
    assert case.refusal(case.entries[:2]) == "set-too-small"


def test_votes_for_different_sets_release_nothing(case, world):
    checked = case.judge(case.entries)
    votes = []
    for opening, root in zip(case.openings, (checked.root, b"z" * 32, checked.root), strict=True):
        site = world.sites[opening.opening.site]
        vote = round_pb2.Vote(
            suite=SUITE,
            plan_digest=case.plan.digest,
            cohort=0,
            credential_digest=site.trustee.credential.digest,
            set_root=root,
            set_size=8,
            chain=round_pb2.Chain(boot_id=b"b" * 16, index=1),
        )
        votes.append(sign_message("vote", vote, site.trustee.key))
    with pytest.raises(BedsideError) as caught:
        open_votes(votes, case.plan, 0, case.openings, checked.root)
    assert caught.value.code == "votes-differ"
    with pytest.raises(BedsideError) as caught:
        open_votes(votes[:2], case.plan, 0, case.openings, checked.root)
    assert caught.value.code == "votes-incomplete"


def test_a_voted_trustee_has_no_way_to_another_set_and_an_answered_one_none_back():
    assert not TRUSTEE.accepts(TrusteeState.VOTED, TrusteeInput.VOTE)
    for event in (TrusteeInput.VOTE, TrusteeInput.CLOSE, TrusteeInput.OPEN, TrusteeInput.KEY_LOST):
        assert not TRUSTEE.accepts(TrusteeState.ANSWERED, event)
    assert TRUSTEE.advance(TrusteeState.VOTED, TrusteeInput.KEY_LOST) is TrusteeState.LOST
