"""Malicious plans, at least one per rule of `judge_plan`: a real trustee opens none of them, and no device trains."""

from __future__ import annotations

from attack_cases import Attempt, attack
from attack_field import NOW_S, Field
from guard_switch import Guard, Instead, without

from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.policy import judge
from bedside.core.securesum import plans, ring
from bedside.core.securesum.plans import layout_message
from bedside.core.signing.envelope import digest, sign_message
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed

W0, B0 = ("w0", (4, 2)), ("b0", (2,))


def layout(*, tensors=(W0, B0), clip_e6=1_000_000, bits=8, counts=("examples", "correct")) -> plan_pb2.Layout:
    slots = tuple(TensorSlot(name, shape) for name, shape in tensors)
    values = Segment("parameters", SegmentKind.VALUE, slots, clip_e6=clip_e6, bits=bits, rotation_block=4)
    return layout_message(Layout((values, *(Segment(name, SegmentKind.COUNT, cap=400) for name in counts))))


def training(field: Field, **changes: object) -> plan_pb2.Training:
    told = plan_pb2.Training()
    told.CopyFrom(field.world.plan_message().training)
    for name, value in changes.items():
        setattr(told, name, value)
    return told


def cohort(field: Field, *trustees: int) -> plan_pb2.Cohort:
    """The plan's cohort with only these trustees."""
    told, made = field.world.plan_message().cohorts[0], plan_pb2.Cohort()
    made.CopyFrom(told)
    del made.trustees[:]
    made.trustees.extend(told.trustees[place] for place in trustees)
    return made


MALICIOUS = {
    "a_site_that_is_not_in_the_plan": ("site-not-in-plan", lambda f: {"cohorts": [_sites(f, ["birch", "cedar"])]}),
    "a_purpose_that_the_site_does_not_allow": (
        "purpose-not-allowed",
        lambda _: {"purpose": plan_pb2.PURPOSE_STATISTIC, "statistic_template": "age>80 and female"},
    ),
    "an_evaluation_that_the_site_does_not_allow": (
        "purpose-not-allowed",
        lambda _: {"purpose": plan_pb2.PURPOSE_EVALUATE},
    ),
    "one_trustee_only": ("too-few-trustees", lambda f: {"cohorts": [cohort(f, 0)]}),
    "sets_of_two": ("too-few-contributors", lambda _: {"min_contributors": 2}),
    "a_clip_beyond_the_policy": ("codec-out-of-range", lambda _: {"layout": layout(clip_e6=11_000_000)}),
    "fewer_bits_than_the_policy": ("codec-out-of-range", lambda _: {"layout": layout(bits=3)}),
    "a_local_tensor_declared_shared": (
        "layout-not-the-models",
        lambda _: {"layout": layout(tensors=(W0, B0, ("amax", (1,))))},
    ),
    "half_of_the_model": ("layout-not-the-models", lambda _: {"layout": layout(tensors=(B0,))}),
    "a_count_of_ones_own": (
        "layout-not-the-models",
        lambda _: {"layout": layout(counts=("examples", "patients-in-bed-7"))},
    ),
    "a_gradient_of_a_single_step": ("training-out-of-range", lambda f: {"training": training(f, min_local_steps=1)}),
    "a_batch_of_one": ("training-out-of-range", lambda f: {"training": training(f, batch_size=1)}),
    "a_single_example": ("training-out-of-range", lambda f: {"training": training(f, min_examples=1)}),
    "a_single_patient": ("training-out-of-range", lambda f: {"training": training(f, min_sessions=0)}),
    "an_enormous_learning_rate": (
        "training-out-of-range",
        lambda f: {"training": training(f, learning_rate_e9=2_000_000_000)},
    ),
    "a_suffix_that_suits_one_device": ("training-out-of-range", lambda f: {"training": training(f, suffix="head")}),
    "a_round_that_has_closed": (
        "closes-too-late",
        lambda _: {"issued_at_s": NOW_S - 600, "close_at_s": NOW_S - 1},
    ),
}
"""Name to the rule's code and the changes of a plan."""


_BEHIND = {"a_site_that_is_not_in_the_plan": ("too-few-trustees",)}
"""Rules that would refuse the same plan for another reason."""


def _sites(field: Field, sites: list[str]) -> plan_pb2.Cohort:
    made = cohort(field, 0, 1, 2)
    del made.sites[:]
    made.sites.extend(sites)
    return made


def _enter(name: str, code: str, changes) -> None:
    def prepare(field: Field) -> Attempt:
        plan = field.plan(**changes(field))
        return lambda: field.open(plan)

    prepare.__name__ = "a_plan_with_" + name
    attack("T7", code, without(code, *_BEHIND.get(name, ())))(prepare)


for _name, (_code, _changes) in MALICIOUS.items():
    _enter(_name, _code, _changes)


@attack("T7", "task-not-allowed", without("task-not-allowed"))
def a_plan_of_a_task_that_the_site_does_not_take_part_in(field: Field) -> Attempt:
    field.policy = {"tasks": '["sepsis"]'}
    plan = field.plan()
    return lambda: field.open(plan)


@attack("T7", "unknown-signer", Instead(judge, "signer_of", lambda *_: "anybody"))
def a_plan_with_a_model_that_the_coordinator_signed(field: Field) -> Attempt:
    """An unsigned graph, or one that only the coordinator vouches for, can hold an imprint layer."""
    bench, world = field.bench(), field.world
    forged = Signed.FromString(bench.manifest.SerializeToString())
    forged.signature = sign_bundle(bench.manifest.payload, world.coordinator)
    return lambda: field.open(field.plan(), manifest=forged)


@attack("T7", "other-bundle", Guard(judge._open_manifest, "other-bundle"))
def a_plan_beside_a_manifest_that_it_does_not_name(field: Field) -> Attempt:
    return lambda: field.open(field.plan(bundle=BlobRef(digest=digest(b"another"), size_bytes=1)))


@attack("T7", "layout-not-the-models", without("layout-not-the-models"))
def a_malicious_plan_to_a_device(field: Field) -> Attempt:
    """The device asks the same function, also when the own trustee was talked into an opening."""
    plan = field.plan(layout=layout(tensors=(W0, B0, ("amax", (1,)))))
    openings, _ = field.world.open_round(plan)
    return lambda: field.take(field.offer(plan, openings))


# What everybody checks in a plan, whatever the policy says; the coordinator signs it all the same.


def _signed_plan(field: Field, **changes: object) -> Attempt:
    field.bench()
    told = field.world.plan_message(**{**field.bench().fields, **changes})
    signed = sign_message("plan", told, field.world.coordinator)
    request = field.bench().open_request(field.plan())
    request.plan.CopyFrom(signed)
    return lambda: [_unless(word) for word in field.bench().duty.open(request)]


def _unless(word):
    from attack_field import unless_refused

    return unless_refused(word)


@attack("T7", "bad-suite", Guard(plans._check_header, "bad-suite"))
def a_plan_of_another_suite(field: Field) -> Attempt:
    return _signed_plan(field, suite=2)


@attack("T7", "bad-word-bits", Guard(ring.word_dtype, "bad-word-bits"), without("codec-out-of-range"))
def a_plan_with_words_too_narrow_to_hide_in(field: Field) -> Attempt:
    return _signed_plan(field, word_bits=7, layout=layout(bits=4, counts=()), max_contributors=8)


@attack("T7", "ring-overflow", Guard(ring.check_sum_fits, "ring-overflow"))
def a_plan_whose_sum_overflows_the_ring(field: Field) -> Attempt:
    return _signed_plan(field, max_contributors=258)


@attack("T7", "reader-too-old", Guard(plans.open_plan, "reader-too-old"))
def a_plan_for_a_reader_that_knows_more(field: Field) -> Attempt:
    return _signed_plan(field, min_reader_version=2)


@attack("T7", "bad-plan", Guard(plans._require, "bad-plan"), without("closes-too-late"))
def a_plan_that_stays_open_for_eight_days(field: Field) -> Attempt:
    return _signed_plan(field, close_at_s=NOW_S + 8 * 86_400)


def sign_bundle(payload: bytes, key) -> bytes:
    from bedside.core.signing.envelope import signature_of

    return signature_of("bundle", payload, key)
