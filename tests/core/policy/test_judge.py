"""Each rule of `judge_plan` with a plan that breaks just it."""

from __future__ import annotations

import msgspec
import pytest

from bedside.core.bundle.layers import Dense, Flatten
from bedside.core.bundle.manifest import (
    COMMITTED,
    Cost,
    FileEntry,
    Golden,
    Manifest,
    Quantisation,
    QuantisedLayer,
    TensorSpec,
    Training,
    WindowSpec,
    encode_manifest,
)
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.policy import SitePolicy, judge_plan
from bedside.core.policy.judge import RULES
from bedside.core.securesum.plans import layout_message
from bedside.core.signing.envelope import digest, sign
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed


def make_manifest() -> Manifest:
    return Manifest(
        name="tiny",
        version="1",
        signer="author",
        labels=("rest", "move"),
        window=WindowSpec("motion", 1, 50.0, 4, 2, (0.0,), (1.0,)),
        layers=(Flatten(), Dense(2)),
        parameters=(
            TensorSpec("w0", (4, 2)),
            TensorSpec("b0", (2,)),
            TensorSpec("amax", (1,), shared=False),
        ),
        optimiser=(),
        quantisation=Quantisation("Q1", "amax", 63, (QuantisedLayer("w0", "b0", 0, True),)),
        training=Training(0.05, 0.9, 32, 2),
        golden=Golden(1, 0.05, 0.9, 0.0, ()),
        cost=Cost(32, 1.0, 50.0),
        files=tuple(FileEntry(name, 1, "0" * 64) for name in COMMITTED),
    )


class Case:
    def __init__(self, world):
        self.world = world
        manifest = encode_manifest(make_manifest())
        self.manifest = Signed.FromString(sign("bundle", manifest, world.author))
        self.policy = SitePolicy(
            bundle_signers={"author": bytes(world.author.verify_key).hex()},
            trusted_sites=("birch", "cedar"),
            min_trusted=3,
        )
        self.fields = {
            "bundle": BlobRef(digest=digest(manifest), size_bytes=100),
            "layout": layout_message(self.layout()),
        }

    def layout(self, *, tensors=(("w0", (4, 2)), ("b0", (2,))), clip_e6=1_000_000, counts=("examples", "correct")):
        slots = tuple(TensorSlot(name, shape) for name, shape in tensors)
        values = Segment("parameters", SegmentKind.VALUE, slots, clip_e6=clip_e6, bits=8, rotation_block=4)
        return Layout((values, *(Segment(name, SegmentKind.COUNT, cap=400) for name in counts)))

    def judge(self, *, policy=None, site="alder", now_s=None, manifest=None, **changes):
        plan = self.world.plan(**{**self.fields, **changes})
        rules = msgspec.structs.replace(self.policy, **(policy or {}))
        return judge_plan(plan, rules, manifest or self.manifest, own_site=site, now_s=now_s)

    def training(self, **changes):
        training = plan_pb2.Training()
        training.CopyFrom(self.world.plan_message().training)
        for name, value in changes.items():
            setattr(training, name, value)
        return training


@pytest.fixture
def case(world):
    return Case(world)


def test_a_plan_within_the_policy_is_allowed(case):
    verdict = case.judge()
    assert verdict.allowed, verdict.sentence


def test_a_share_of_the_coordinates_that_the_policy_allows_is_allowed(case):
    assert case.judge(subsample_e32=1 << 28).allowed
    assert case.judge(policy={"min_subsample": 0.5}, subsample_e32=1 << 31).allowed
    assert case.judge(policy={"min_subsample": 1.0}).allowed
    for beyond in (0.06, 1.01):
        with pytest.raises(ValueError, match="min_subsample"):
            case.judge(policy={"min_subsample": beyond})


def test_a_model_by_an_unlisted_signer_is_refused(case):
    assert case.judge(policy={"bundle_signers": {}}).code == "unknown-signer"
    stranger = bytes(case.world.new_key().verify_key).hex()
    assert case.judge(policy={"bundle_signers": {"other": stranger}}).code == "unknown-signer"


def test_the_coordinators_own_signature_on_a_model_counts_for_nothing(case):
    forged = Signed.FromString(sign("bundle", case.manifest.payload, case.world.coordinator))
    assert case.judge(manifest=forged).code == "unknown-signer"


def test_a_plan_for_another_bundle_than_the_signed_one_is_refused(case):
    assert case.judge(bundle=BlobRef(digest=b"o" * 32, size_bytes=1)).code == "other-bundle"


@pytest.mark.parametrize(
    ("kwargs", "code"),
    [
        ({"policy": {"tasks": ("other",)}}, "task-not-allowed"),
        ({"purpose": plan_pb2.PURPOSE_STATISTIC}, "purpose-not-allowed"),
        ({"policy": {"purposes": ("evaluate",)}}, "purpose-not-allowed"),
        ({"site": "oak"}, "site-not-in-plan"),
        ({"policy": {"min_trustees": 4}}, "too-few-trustees"),
        ({"policy": {"min_contributors": 4}}, "too-few-contributors"),
        ({"policy": {"word_bits": (20, 32)}}, "codec-out-of-range"),
        ({"policy": {"min_subsample": 0.5}, "subsample_e32": (1 << 31) - 1}, "codec-out-of-range"),
        ({"policy": {"min_subsample": 1.0}, "subsample_e32": (1 << 32) - 1}, "codec-out-of-range"),
        ({"policy": {"value_bits": (4, 6)}}, "codec-out-of-range"),
        ({"policy": {"max_clip": 0.5}}, "codec-out-of-range"),
        ({"policy": {"min_examples": 65}}, "training-out-of-range"),
        ({"policy": {"min_batch": 33}}, "training-out-of-range"),
        ({"policy": {"min_local_steps": 5}}, "training-out-of-range"),
        ({"policy": {"min_sessions": 2}}, "training-out-of-range"),
        ({"policy": {"max_epochs": 1}}, "training-out-of-range"),
        ({"policy": {"max_learning_rate": 0.01}}, "training-out-of-range"),
        ({"now_s": 1_800_000_000 + 601}, "closes-too-late"),
    ],
)
def test_each_rule_refuses_with_its_code_and_a_sentence(case, kwargs, code):
    verdict = case.judge(**kwargs)
    assert (verdict.allowed, verdict.code) == (False, code)
    assert verdict.sentence


def test_an_open_time_above_the_sites_limit_is_refused(case):
    late = case.judge(policy={"max_close_hours": 1}, close_at_s=1_800_000_000 + 7200)
    assert late.code == "closes-too-late"


def test_a_local_tensor_can_never_be_declared_shared(case):
    tensors = (("w0", (4, 2)), ("b0", (2,)), ("amax", (1,)))
    assert case.judge(layout=layout_message(case.layout(tensors=tensors))).code == "layout-not-the-models"


def test_a_count_outside_the_catalogue_is_refused(case):
    counts = ("examples", "patients-with-label-move")
    assert case.judge(layout=layout_message(case.layout(counts=counts))).code == "layout-not-the-models"


def test_a_plan_without_the_own_sites_trustee_is_refused(case):
    cohort = plan_pb2.Cohort()
    cohort.CopyFrom(case.world.plan_message().cohorts[0])
    del cohort.trustees[0]
    assert case.judge(cohorts=[cohort]).code == "too-few-trustees"


@pytest.mark.parametrize("change", [{"level": 3}, {"suffix": "head"}, {"momentum_e6": 1_000_000}, {"weighting": 0}])
def test_training_that_this_version_does_not_know_is_refused(case, change):
    assert case.judge(training=case.training(**change)).code == "training-out-of-range"


def test_every_rule_has_a_plan_that_breaks_it():
    tested = {
        "site-not-in-plan",
        "task-not-allowed",
        "purpose-not-allowed",
        "too-few-trustees",
        "too-few-contributors",
        "codec-out-of-range",
        "layout-not-the-models",
        "training-out-of-range",
        "closes-too-late",
    }
    assert {rule.__name__.strip("_").replace("_", "-") for rule in RULES} == tested


@pytest.mark.parametrize(
    "rules",
    [
        {"min_trusted": 2},
        {"min_trustees": 0},
        {"purposes": ("gossip",)},
        {"heartbeat": "chatty"},
        {"max_close_hours": 169},
        {"min_local_steps": 1},
        {"bundle_signers": {"author": "zz"}},
    ],
)
def test_a_policy_that_protects_nothing_is_refused(rules):
    with pytest.raises(ValueError, match=r"min_|purposes|heartbeat|max_|bundle_signers"):
        SitePolicy(**rules)
