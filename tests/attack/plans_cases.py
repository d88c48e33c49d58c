"""Malicious plans, at least one per rule of `judge_plan`: a real trustee opens none of them, and no device trains."""

from __future__ import annotations

import json

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
from bedside.service.platform import local_minute
from bedside.trustee.site_rules import SiteRules
from malicious_plans import MALICIOUS, MaliciousPlan

W0, B0 = ("w0", (4, 2)), ("b0", (2,))


def layout(*, tensors=(W0, B0), bits=8, counts=("examples", "correct")) -> plan_pb2.Layout:
    slots = tuple(TensorSlot(name, shape) for name, shape in tensors)
    values = Segment("parameters", SegmentKind.VALUE, slots, clip_e6=1_000_000, bits=bits, rotation_block=4)
    return layout_message(Layout((values, *(Segment(name, SegmentKind.COUNT, cap=400) for name in counts))))


_BEHIND = {
    "site-not-in-plan: leaves the site out": ("too-few-trustees",),
    "layout-not-the-models: statistic of values": ("statistic-not-in-catalogue", "statistic-without-noise"),
    "statistic-not-in-catalogue: free predicate": ("statistic-without-noise",),
    "statistic-not-in-catalogue: template that the site does not name": ("statistic-without-noise",),
    "statistic-not-in-catalogue: other words than the template's": ("statistic-without-noise",),
    "training-out-of-range: one step": ("single-step-gradient",),
    "training-out-of-range: few examples": ("single-step-gradient",),
    "training-out-of-range: no rate": ("single-step-gradient",),
}
"""Rules that would refuse the same plan for another reason."""


def _enter(bad: MaliciousPlan) -> None:
    def prepare(field: Field) -> Attempt:
        field.policy = {name: toml(value) for name, value in bad.rules.items()}
        message = field.world.plan_message(**field.bench().fields)
        bad.change(message)
        plan = field.world.sign_plan(message)
        return lambda: field.open(plan)

    prepare.__name__ = f"a plan, {bad.code}: {bad.name}"
    if bad.code == "other-bundle":
        guard = Guard(judge._open_manifest, "other-bundle")
    else:
        guard = without(bad.code, *_BEHIND.get(f"{bad.code}: {bad.name}", ()))
    attack("T7", bad.code, guard)(prepare)


def toml(value: object) -> str:
    """A rule's value as a policy file has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {item}" for key, item in value.items()) + " }"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


for _bad in MALICIOUS:
    _enter(_bad)


@attack("T7", "outside-hours", without("outside-hours"))
def a_plan_outside_the_sites_hours(field: Field) -> Attempt:
    minute = local_minute(NOW_S)
    hours = [f"{(minute // 60 + ahead) % 24:02}:00" for ahead in (2, 3)]
    field.policy = {"hours": toml("-".join(hours))}
    plan = field.plan()
    return lambda: field.open(plan)


@attack("T7", "coordinator-signs-models", Guard(judge.check_signers, "coordinator-signs-models"))
def a_policy_that_was_talked_into_the_coordinators_key(field: Field) -> Attempt:
    field.world.author = field.world.coordinator
    plan = field.plan()
    return lambda: field.open(plan)


@attack("T7", "result-fork", Guard(SiteRules._check_previous, "result-fork"))
def a_result_of_another_plan_than_the_one_that_was_opened(field: Field) -> Attempt:
    """The checkpoint would come from a round that this trustee never saw."""
    bench = field.bench()
    bench.close(field.begin())
    message = field.world.plan_message(**bench.fields, round_number=2)
    forged = field.world.result_before(message, plan_digest=b"x" * 32)
    message.previous_result_digest = digest(forged.payload)
    plan = field.world.sign_plan(message)
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
