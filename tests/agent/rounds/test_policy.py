"""What a device refuses by its site's policy: the same plans as its trustee, with the same codes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bedside.agent.rounds.memory import RoundPoint, Seen
from bedside.agent.rounds.offer import check_offer, check_plan
from bedside.core.errors import BedsideError
from bedside.proto.v1 import plan_pb2
from malicious_plans import MALICIOUS

NOW_S = 1_800_000_100


def judge(offer, standing, seen=None, now_s=NOW_S):
    signed_plan = check_plan(offer, standing, seen or Seen(), now_s=now_s)
    return check_offer(offer, signed_plan, standing, now_s=now_s)


def offer_of(offering, message):
    plan = offering.world.sign_plan(message)
    openings, _ = offering.world.open_round(plan, noise_multiplier_e6=plan.noise_multiplier_e6)
    return offering.offer(plan, openings)


@pytest.mark.parametrize("bad", MALICIOUS, ids=lambda bad: f"{bad.code}: {bad.name}")
def test_each_malicious_plan_is_refused_with_the_code_that_the_trustee_gives(offering, bad):
    message = offering.plan_message()
    bad.change(message)
    with pytest.raises(BedsideError) as caught:
        judge(offer_of(offering, message), offering.standing(**bad.rules))
    assert caught.value.code == bad.code


def test_a_policy_that_names_the_coordinators_key_takes_nothing(offering, refusal):
    key = bytes(offering.world.coordinator.verify_key).hex()
    standing = offering.standing(bundle_signers={"friend": key})
    assert refusal(lambda: judge(offering.make(), standing)) == "coordinator-signs-models"


def test_a_later_round_is_joined_with_the_result_before_it_only(offering, refusal):
    offer = offering.make(round_number=2, previous_result_digest=b"r" * 32)
    assert judge(offer, offering.standing()).plan.plan.round_number == 2
    offer.ClearField("previous_result")
    assert refusal(lambda: judge(offer, offering.standing())) == "checkpoint-outside-lineage"


def test_a_result_of_another_plan_than_the_one_seen_is_a_fork(offering, refusal):
    offer = offering.make(round_number=2, previous_result_digest=b"r" * 32)
    seen = Seen(rounds={"watch": RoundPoint(1, b"d" * 32)})
    assert refusal(lambda: judge(offer, offering.standing(), seen)) == "result-fork"
    known = offering.world.planned.get(("watch", 1), b"h" * 32)
    assert judge(offer, offering.standing(), Seen(rounds={"watch": RoundPoint(1, known)})).cohort == 0


def at_noon(now_s):
    return 12 * 60


def test_a_device_joins_in_its_sites_hours_only(offering, refusal):
    night = replace(offering.standing(hours="20:00-06:00"), local_minute=at_noon)
    assert refusal(lambda: judge(offering.make(), night)) == "outside-hours"
    day = replace(offering.standing(hours="06:00-20:00"), local_minute=at_noon)
    assert judge(offering.make(), day).notes == ()


@pytest.mark.parametrize("now_s", [1_000, None], ids=["never set", "none"])
def test_a_device_without_a_clock_leaves_the_hours_to_its_trustee_and_says_so(offering, now_s):
    night = replace(offering.standing(hours="20:00-06:00"), local_minute=at_noon)
    (note,) = judge(offering.make(), night, now_s=now_s).notes
    assert "no clock to trust" in note


def test_a_purpose_that_devices_cannot_serve_yet_is_declined_as_such(offering, refusal):
    message = offering.plan_message(purpose=plan_pb2.PURPOSE_EVALUATE)
    del message.layout.segments[0]
    standing = offering.standing(purposes=("train", "evaluate"))
    assert refusal(lambda: judge(offer_of(offering, message), standing)) == "purpose-not-known"
