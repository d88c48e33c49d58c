from __future__ import annotations

import pytest

from bedside.core.errors import BedsideError
from bedside.core.securesum.plans import layout_message, layout_of, open_plan
from bedside.core.signing.envelope import sign_message
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.common_pb2 import BlobRef


def code(call, *args, **kwargs):
    with pytest.raises(BedsideError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def test_a_good_plan_is_read(world):
    plan = world.plan()
    assert plan.cohort_of("birch") == 0
    assert plan.vector_words == 129
    assert layout_of(layout_message(plan.layout)) == plan.layout


def test_a_plan_signed_by_a_stranger_is_refused_with_a_remedy(world):
    signed = sign_message("plan", world.plan_message(), world.new_key())
    with pytest.raises(BedsideError) as caught:
        open_plan(signed, bytes(world.coordinator.verify_key))
    assert caught.value.code == "stranger-plan"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"suite": 2}, "bad-suite"),
        ({"min_reader_version": 99}, "reader-too-old"),
        ({"task": "../etc"}, "bad-id"),
        ({"round_number": 0}, "bad-plan"),
        ({"round_number": 2}, "bad-plan"),
        ({"previous_result_digest": b"x" * 32}, "bad-plan"),
        ({"purpose": 0}, "bad-plan"),
        ({"word_bits": 7}, "bad-word-bits"),
        ({"word_bits": 33}, "bad-word-bits"),
        ({"max_contributors": 258}, "ring-overflow"),
        ({"max_contributors": 10_001}, "bad-plan"),
        ({"min_contributors": 101}, "bad-plan"),
        ({"min_contributors": 0}, "bad-plan"),
        ({"close_at_s": 1_800_000_000}, "bad-plan"),
        ({"close_at_s": 1_800_000_000 + 8 * 86_400}, "bad-plan"),
        ({"subsample_e32": 5}, "bad-plan"),
        ({"subsample_e32": (1 << 28) - 1}, "bad-plan"),
        ({"server": plan_pb2.ServerStep(combiner=plan_pb2.COMBINER_MEDIAN)}, "bad-combiner"),
        ({"server": plan_pb2.ServerStep(combiner=plan_pb2.COMBINER_MEAN, trim_cohorts=1)}, "bad-combiner"),
        ({"bundle": BlobRef(digest=b"short", size_bytes=1)}, "bad-plan"),
        ({"checkpoint": BlobRef(digest=b"k" * 32, size_bytes=1 << 40)}, "bad-plan"),
        ({"cohorts": []}, "bad-plan"),
    ],
)
def test_every_bound_of_a_plan_is_checked(world, changes, expected):
    assert code(world.plan, **changes) == expected


def test_cohorts_share_no_site_and_no_trustee_stands_twice(world):
    cohort = world.plan_message().cohorts[0]
    other = plan_pb2.Cohort()
    other.CopyFrom(cohort)
    other.index = 1
    assert code(world.plan, cohorts=[cohort, other]) == "bad-plan"
    twice = plan_pb2.Cohort()
    twice.CopyFrom(cohort)
    twice.trustees.add().CopyFrom(cohort.trustees[0])
    assert code(world.plan, cohorts=[twice]) == "bad-plan"
    crowded = plan_pb2.Cohort(index=0, sites=["alder"])
    crowded.trustees.extend(
        plan_pb2.CohortTrustee(site="alder", trustee="t", credential_digest=bytes([i]) * 32) for i in range(6)
    )
    assert code(world.plan, cohorts=[crowded]) == "bad-plan"


def test_a_plan_that_sends_a_share_of_the_coordinates_has_a_shorter_vector(world):
    plan = world.plan(subsample_e32=1 << 30)
    assert plan.vector_words == 128 // 4 + 1
    assert layout_message(plan.layout) == plan.plan.layout
    assert layout_of(plan.plan.layout, plan.plan.subsample_e32) == plan.layout


def test_a_trimmed_mean_needs_a_majority_of_honest_cohorts_in_the_plan(world):
    first = world.plan_message().cohorts[0]
    cohorts = [
        plan_pb2.Cohort(index=at, sites=[site], trustees=[first.trustees[at]]) for at, site in enumerate(first.sites)
    ]
    assert len(cohorts) == 3
    for trim, expected in ((1, ""), (2, "bad-combiner"), (0, "bad-combiner")):
        server = plan_pb2.ServerStep(combiner=plan_pb2.COMBINER_TRIMMED_MEAN, trim_cohorts=trim)
        if expected:
            assert code(world.plan, cohorts=cohorts, server=server) == expected
        else:
            assert world.plan(cohorts=cohorts, server=server).plan.server.trim_cohorts == trim


def test_a_count_that_could_wrap_is_refused(world):
    layout = world.plan_message().layout
    layout.segments[1].cap = 700
    assert code(world.plan, layout=layout) == "ring-overflow"


def test_an_unknown_segment_kind_is_refused(world):
    layout = world.plan_message().layout
    layout.segments[0].kind = 7
    assert code(world.plan, layout=layout) == "bad-message"
    layout.segments[0].kind = 0
    assert code(world.plan, layout=layout) == "bad-layout"


@pytest.mark.parametrize(
    "changes",
    [
        {"round_number": 1 << 63, "previous_result_digest": b"p" * 32},
        {"log_size": 1 << 63},
        {"issued_at_s": (1 << 64) - 10, "close_at_s": (1 << 64) - 1},
        {"noise": plan_pb2.Noise(noise_multiplier_e6=1 << 63)},
        {"purpose": 99},
        {"training": plan_pb2.Training(weighting=99)},
        {"training": plan_pb2.Training(weighting=1, level=99)},
        {"server": plan_pb2.ServerStep(optimiser=99)},
    ],
    ids=str,
)
def test_numbers_that_cannot_be_stored_and_kinds_that_are_not_known_are_refused(world, changes):
    assert code(world.plan, **changes) == "bad-message"


def test_times_that_no_calendar_shows_are_refused(world):
    far_s = 253_402_300_800
    assert code(world.plan, issued_at_s=far_s - 600, close_at_s=far_s) == "bad-plan"
    world.plan(issued_at_s=far_s - 600, close_at_s=far_s - 1)
