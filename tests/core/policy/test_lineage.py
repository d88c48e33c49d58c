"""A checkpoint is the model's first, or that of the signed result before it; nothing else can be slipped in."""

from __future__ import annotations

import msgspec
import pytest

from bedside.core.policy import SitePolicy, judge_plan
from bedside.core.policy.judge import judge_each
from bedside.core.signing.envelope import digest, sign, sign_message
from bedside.proto.v1 import plan_pb2, round_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed

FIRST, NEXT, CRAFTED = (BlobRef(digest=letter * 32, size_bytes=10) for letter in (b"k", b"n", b"z"))
BUNDLE = b"m" * 32


class Lineage:
    """Plans of round 2, and the result before them."""

    def __init__(self, world, make_manifest):
        from bedside.core.bundle.manifest import encode_manifest
        from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
        from bedside.core.securesum.plans import layout_message

        self.world = world
        encoded = encode_manifest(make_manifest())
        self.manifest = Signed.FromString(sign("bundle", encoded, world.author))
        slots = (TensorSlot("w0", (4, 2)), TensorSlot("b0", (2,)))
        values = Segment("parameters", SegmentKind.VALUE, slots, clip_e6=1_000_000, bits=8, rotation_block=4)
        self.fields = {
            "bundle": BlobRef(digest=digest(encoded), size_bytes=10),
            "layout": layout_message(Layout((values,))),
        }
        self.policy = SitePolicy(
            bundle_signers={"author": bytes(world.author.verify_key).hex()},
            purposes=("train", "evaluate"),
            min_trusted=3,
        )

    def result(self, *, key=None, **changes):
        told = {
            "suite": 1,
            "plan_digest": b"h" * 32,
            "task": "watch",
            "round_number": 1,
            "checkpoint": NEXT,
            "bundle_digest": self.fields["bundle"].digest,
        }
        return sign_message("result", round_pb2.Result(**(told | changes)), key or self.world.coordinator)

    def judge(self, checkpoint, previous=None, *, beside=None, **changes):
        message = self.world.plan_message(**self.fields, checkpoint=checkpoint, **changes)
        if previous is not None:
            message.round_number = 2
            message.previous_result_digest = digest(previous.payload)
        if message.purpose == plan_pb2.PURPOSE_EVALUATE:
            del message.layout.segments[:]
            message.layout.segments.append(plan_pb2.Segment(name="correct", kind=plan_pb2.SEGMENT_KIND_COUNT, cap=400))
        plan = self.world.sign_plan(message)
        verdict = judge_plan(plan, self.policy, self.manifest, own_site="alder", previous=beside or previous)
        return verdict.code or "allowed"


@pytest.fixture
def lineage(world, tiny_manifest):
    return Lineage(world, tiny_manifest)


def test_a_first_round_starts_from_the_models_first_checkpoint_only(lineage):
    assert lineage.judge(FIRST) == "allowed"
    assert lineage.judge(CRAFTED) == "checkpoint-outside-lineage"


def test_a_later_round_starts_where_the_result_before_it_ended(lineage):
    result = lineage.result()
    assert lineage.judge(NEXT, result) == "allowed"
    assert lineage.judge(CRAFTED, result) == "checkpoint-outside-lineage"


def test_training_does_not_go_back_to_the_first_checkpoint_of_the_same_bundle(lineage):
    assert lineage.judge(FIRST, lineage.result()) == "checkpoint-outside-lineage"


def test_the_first_round_on_another_bundle_starts_from_that_bundles_first_checkpoint(lineage):
    result = lineage.result(bundle_digest=b"other-bundle-of-32-bytes-length!")
    assert lineage.judge(FIRST, result) == "allowed"
    assert lineage.judge(NEXT, result) == "checkpoint-outside-lineage"


@pytest.mark.parametrize(
    "changes",
    [{"task": "sleep"}, {"round_number": 2}, {"round_number": 0}],
    ids=["of another task", "of a later round", "of an earlier round"],
)
def test_a_result_of_another_place_starts_nothing(lineage, changes):
    assert lineage.judge(NEXT, lineage.result(**changes)) == "checkpoint-outside-lineage"


def test_a_result_that_the_coordinator_did_not_sign_starts_nothing(lineage):
    assert lineage.judge(NEXT, lineage.result(key=lineage.world.new_key())) == "checkpoint-outside-lineage"


def test_a_result_beside_the_plan_that_the_plan_does_not_name_starts_nothing(lineage):
    other = lineage.result(checkpoint=CRAFTED)
    assert lineage.judge(CRAFTED, lineage.result(), beside=other) == "checkpoint-outside-lineage"


def test_a_later_round_without_the_result_before_it_is_refused(lineage):
    message = lineage.world.plan_message(
        **lineage.fields, round_number=2, previous_result_digest=digest(lineage.result().payload)
    )
    plan = lineage.world.sign_plan(message)
    verdict = judge_plan(plan, lineage.policy, lineage.manifest, own_site="alder")
    assert verdict.code == "checkpoint-outside-lineage"
    assert "did not come with it" in verdict.sentence


def test_an_evaluation_sees_checkpoints_of_the_lineage_only(lineage):
    evaluate = {"purpose": plan_pb2.PURPOSE_EVALUATE}
    assert lineage.judge(NEXT, lineage.result(), **evaluate) == "allowed"
    assert lineage.judge(FIRST, lineage.result(), **evaluate) == "allowed"
    assert lineage.judge(CRAFTED, lineage.result(), **evaluate) == "checkpoint-outside-lineage"


def test_every_rule_is_told_with_what_holds_or_why_not(lineage):
    plan = lineage.world.plan(**lineage.fields, checkpoint=CRAFTED, min_contributors=2)
    judged = judge_each(plan, lineage.policy, lineage.manifest, own_site="alder")
    assert [one.code for one in judged if not one.allowed] == ["too-few-contributors", "checkpoint-outside-lineage"]
    assert all(one.sentence for one in judged)
    stranger = msgspec.structs.replace(lineage.policy, bundle_signers={})
    (only,) = judge_each(plan, stranger, lineage.manifest, own_site="alder")
    assert (only.code, only.allowed) == ("unknown-signer", False)
