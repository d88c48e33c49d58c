"""Who may be in a sum together, and how two sets may differ."""

from __future__ import annotations

import pytest

from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.policy import SitePolicy
from bedside.core.policy.history import PastRound, inputs_of, judge_history
from bedside.core.policy.sets import EarlierSet, judge_difference, judge_set_members, members_by_site
from bedside.core.securesum.plans import layout_message
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.common_pb2 import BlobRef

NOW_S = 1_800_000_000
TRAIN, EVALUATE, STATISTIC = plan_pb2.PURPOSE_TRAIN, plan_pb2.PURPOSE_EVALUATE, plan_pb2.PURPOSE_STATISTIC


def a_set(**sites):
    """Devices numbered from 0 by default; a tuple names them."""
    named = {site: range(which) if isinstance(which, int) else which for site, which in sites.items()}
    return members_by_site([(site, bytes([number])) for site, numbers in named.items() for number in numbers])


def rules(**changes):
    return SitePolicy(**({"trusted_sites": ("birch",), "min_trusted": 4} | changes))


@pytest.mark.parametrize(
    ("members", "code"),
    [
        (a_set(alder=2, birch=2), ""),
        (a_set(alder=4), ""),
        (a_set(alder=2, birch=1), "min-trusted"),
        (a_set(alder=1, cedar=200), "min-trusted"),
        (a_set(birch=1, cedar=9), ""),
    ],
    ids=["enough", "own only", "too few", "around one victim", "none of ours"],
)
def test_only_devices_of_trusted_sites_count(members, code):
    assert judge_set_members(members, rules(), "alder").code == code


def test_no_site_fills_more_of_a_set_than_the_policy_says():
    members = a_set(alder=2, birch=8)
    assert judge_set_members(members, rules(max_share_one_site=0.8), "alder").allowed
    verdict = judge_set_members(members, rules(max_share_one_site=0.79), "alder")
    assert verdict.code == "one-site-dominates"
    assert "80%" in verdict.sentence


def earlier(**sites):
    return [EarlierSet("watch", 3, a_set(**sites))]


@pytest.mark.parametrize(
    ("before", "now", "allowed"),
    [
        ({"alder": 3, "birch": 3}, {"alder": 3, "birch": 3}, True),
        ({"alder": 3, "birch": 3}, {"alder": 2, "birch": 3}, False),
        ({"alder": 2, "birch": 3}, {"alder": 3, "birch": 3}, False),
        ({"alder": (0, 1, 2)}, {"alder": (1, 2, 3)}, False),
        ({"alder": 5, "birch": 3}, {"alder": 2, "birch": 3}, False),
        ({"alder": 6, "birch": 3}, {"alder": 2, "birch": 3}, True),
        ({"alder": 3, "cedar": 1}, {"alder": 3, "cedar": 9}, True),
        ({"alder": 3, "birch": 3, "cedar": 9}, {"alder": 3, "birch": 2, "cedar": 1}, False),
        ({"birch": 3}, {"birch": 2, "alder": 0}, False),
    ],
    ids=[
        "the same",
        "one gone",
        "one more",
        "one exchanged",
        "three gone",
        "four gone",
        "strangers only",
        "one gone behind strangers",
        "one of a peer gone",
    ],
)
def test_sets_over_the_same_inputs_differ_by_none_or_by_enough_trusted_devices(before, now, allowed):
    verdict = judge_difference(a_set(**now), earlier(**before), rules(), "alder")
    assert verdict.code == ("" if allowed else "set-differs-too-little")


def test_every_earlier_set_is_compared():
    sets = earlier(alder=9) + earlier(alder=3)
    assert judge_difference(a_set(alder=4), sets, rules(), "alder").code == "set-differs-too-little"


def test_what_repeats_is_named_alike_whatever_it_is_called(world):
    def inputs(**changes):
        return inputs_of(world.plan(**changes))

    base = inputs()
    again = {"round_number": 2, "previous_result_digest": b"r" * 32}
    slower = plan_pb2.Training()
    slower.CopyFrom(world.plan_message().training)
    slower.learning_rate_e9 += 1
    assert inputs(task="other") == inputs(**again) == inputs(training=slower) == base
    assert inputs(checkpoint=BlobRef(digest=b"n" * 32, size_bytes=10)) != base
    assert inputs(bundle=BlobRef(digest=b"n" * 32, size_bytes=10)) != base
    assert inputs(purpose=EVALUATE) != base
    statistic = {"purpose": STATISTIC, "statistic_template": "signal-quality"}
    other_model = BlobRef(digest=b"n" * 32, size_bytes=10)
    assert inputs(**statistic) == inputs(**statistic, bundle=other_model, task="other")
    assert inputs(**statistic) != inputs(purpose=STATISTIC, statistic_template="labelled-windows")


@pytest.mark.parametrize(
    ("name", "repeats"), [("mean0", True), ("square0", True), ("variance2", True), ("amax", False), ("w0", False)]
)
def test_sums_of_observed_moments_repeat_whatever_else_changes(world, name, repeats):
    slots = (TensorSlot("w0", (96,)), TensorSlot(name, (2,)))
    values = Segment("parameters", SegmentKind.VALUE, slots[name == "w0" :], clip_e6=10**6, bits=8, rotation_block=64)
    layout = layout_message(Layout((values,)))
    first, other = BlobRef(digest=b"k" * 32, size_bytes=10), BlobRef(digest=b"n" * 32, size_bytes=10)
    before = inputs_of(world.plan(layout=layout, checkpoint=first))
    assert (inputs_of(world.plan(layout=layout, checkpoint=other)) == before) is repeats
    assert (inputs_of(world.plan(layout=layout, checkpoint=other, bundle=other, task="other")) == before) is repeats
    assert inputs_of(world.plan()) != before or not repeats


def past(count, purpose=TRAIN, checkpoint=b"k" * 32, age_s=60):
    return [PastRound(purpose, checkpoint, NOW_S - age_s)] * count


@pytest.mark.parametrize(
    ("purpose", "before", "code"),
    [
        (TRAIN, past(2), ""),
        (TRAIN, past(3), "too-many-rounds"),
        (TRAIN, past(1) + past(2, STATISTIC), "too-many-rounds"),
        (TRAIN, past(3, age_s=86_401), ""),
        (STATISTIC, past(1, STATISTIC), "too-many-of-purpose"),
        (STATISTIC, past(1, STATISTIC, age_s=86_401) + past(2), ""),
        (EVALUATE, past(1, EVALUATE, age_s=10**6), ""),
        (EVALUATE, past(2, EVALUATE, age_s=10**6), "too-many-evaluations"),
        (EVALUATE, past(2, EVALUATE, b"n" * 32), ""),
    ],
)
def test_quotas_are_per_day_and_evaluations_per_checkpoint_for_ever(world, purpose, before, code):
    policy = rules(max_rounds_per_day=3, quotas={"statistic": 1}, max_evaluations_per_checkpoint=2)
    assert judge_history(world.plan(purpose=purpose), policy, before, now_s=NOW_S).code == code
