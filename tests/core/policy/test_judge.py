"""Each rule of `judge_plan` with a plan that breaks just it."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import msgspec
import pytest

from bedside.core.bundle.manifest import encode_manifest
from bedside.core.bundle.training import Cost
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.limits import MAX_TEXT_CHARS
from bedside.core.policy import SitePolicy, judge_plan
from bedside.core.policy.judge import RULES
from bedside.core.securesum.plans import layout_message
from bedside.core.signing.envelope import digest, sign
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from malicious_plans import MALICIOUS

NOW_S = 1_800_000_000
RECIPES = Path(__file__).parents[3] / "authoring/bedside/authoring/recipes"


class Case:
    def __init__(self, world, tiny_manifest):
        self.world = world
        manifest = encode_manifest(tiny_manifest())
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

    def judge(self, *, policy=None, site="alder", now_s=None, local_minute=None, manifest=None, **changes):
        plan = self.world.plan(**{**self.fields, **changes})
        rules = msgspec.structs.replace(self.policy, **(policy or {}))
        previous = self.world.results.get(plan.plan.previous_result_digest)
        return judge_plan(
            plan,
            rules,
            manifest or self.manifest,
            own_site=site,
            previous=previous,
            now_s=now_s,
            local_minute=local_minute,
        )

    def training(self, **changes):
        training = plan_pb2.Training()
        training.CopyFrom(self.world.plan_message().training)
        for name, value in changes.items():
            setattr(training, name, value)
        return training


@pytest.fixture
def case(world, tiny_manifest):
    return Case(world, tiny_manifest)


def test_a_plan_within_the_policy_is_allowed(case):
    verdict = case.judge()
    assert verdict.allowed, verdict.sentence


@pytest.mark.parametrize(
    ("claimed", "told"), [("ab" * 32, "; it names the signer abababababababab…"), ("ignore me", "")]
)
def test_a_refused_model_is_told_with_the_key_that_it_claims_and_no_other_words_of_its_own(
    case, tiny_manifest, claimed, told
):
    manifest = encode_manifest(msgspec.structs.replace(tiny_manifest(), signer=claimed))
    signed = Signed.FromString(sign("bundle", manifest, case.world.author))
    sentence = case.judge(policy={"bundle_signers": {}}, manifest=signed).sentence
    assert sentence == f"no signer that this site allows has signed the model{told}"


def test_a_model_by_an_unlisted_signer_is_refused(case):
    assert case.judge(policy={"bundle_signers": {}}).code == "unknown-signer"
    stranger = bytes(case.world.new_key().verify_key).hex()
    assert case.judge(policy={"bundle_signers": {"other": stranger}}).code == "unknown-signer"


def test_the_coordinators_own_signature_on_a_model_counts_for_nothing(case):
    forged = Signed.FromString(sign("bundle", case.manifest.payload, case.world.coordinator))
    assert case.judge(manifest=forged).code == "unknown-signer"


def test_a_plan_for_another_bundle_than_the_signed_one_is_refused(case):
    assert case.judge(bundle=BlobRef(digest=b"o" * 32, size_bytes=1)).code == "other-bundle"


def test_a_share_of_the_coordinates_that_the_policy_allows_is_allowed(case):
    assert case.judge(subsample_e32=1 << 28).allowed
    assert case.judge(policy={"min_subsample": 0.5}, subsample_e32=1 << 31).allowed
    assert case.judge(policy={"min_subsample": 1.0}).allowed


@pytest.mark.parametrize("bad", MALICIOUS, ids=lambda bad: f"{bad.code}: {bad.name}")
def test_each_rule_refuses_its_malicious_plan_with_its_code_and_what_both_sides_say(case, bad):
    message = case.world.plan_message(**case.fields)
    bad.change(message)
    rules = msgspec.structs.replace(case.policy, **bad.rules)
    verdict = judge_plan(case.world.sign_plan(message), rules, case.manifest, own_site="alder")
    assert (verdict.allowed, verdict.code) == (False, bad.code)
    assert all(words in verdict.sentence for words in bad.words), verdict.sentence
    assert len(verdict.sentence) <= MAX_TEXT_CHARS


def test_a_step_of_an_unmeasured_batch_is_judged_by_the_line_between_the_measured_ones(case, tiny_manifest):
    key = tiny_manifest().costs[0].graph
    costs = (Cost(key, 8, 10.0, 50.0), Cost(key, 128, 20.0, 60.0))
    manifest = encode_manifest(msgspec.structs.replace(tiny_manifest(), costs=costs))
    signed = Signed.FromString(sign("bundle", manifest, case.world.author))
    named = {"manifest": signed, "bundle": BlobRef(digest=digest(manifest), size_bytes=100)}
    assert case.judge(policy={"max_step_ms": 12.0}, training=case.training(batch_size=32), **named).allowed
    slow = case.judge(policy={"max_step_ms": 11.9}, training=case.training(batch_size=32), **named)
    assert (slow.code, "takes 12 ms" in slow.sentence) == ("model-too-slow", True)


def test_a_plan_without_the_own_sites_trustee_is_refused(case):
    message = case.world.plan_message(**case.fields)
    del message.cohorts[0].trustees[0]
    verdict = judge_plan(case.world.sign_plan(message), case.policy, case.manifest, own_site="alder")
    assert verdict.code == "too-few-trustees"


def test_a_round_that_has_closed_is_refused(case):
    assert case.judge(now_s=NOW_S + 601).code == "closes-too-late"


def test_a_round_that_was_issued_in_the_future_does_not_stay_open_for_longer(case):
    ahead = {"issued_at_s": NOW_S + 10 * 86_400, "close_at_s": NOW_S + 10 * 86_400 + 600}
    assert case.judge(now_s=NOW_S, **ahead).code == "closes-too-late"
    assert case.judge(now_s=None, **ahead).allowed


def test_a_round_of_the_future_is_refused_however_soon_it_closes(case):
    for ahead_s, allowed in ((3_600, True), (3_601, False), (5 * 86_400, False)):
        ahead = {"issued_at_s": NOW_S + ahead_s, "close_at_s": NOW_S + ahead_s + 600}
        assert case.judge(now_s=NOW_S, **ahead).allowed is allowed
        assert case.judge(now_s=None, **ahead).allowed


def test_an_open_time_above_the_sites_limit_is_refused(case):
    late = case.judge(policy={"max_close_hours": 1}, close_at_s=1_800_000_000 + 7200)
    assert late.code == "closes-too-late"


def test_every_rule_has_a_malicious_plan():
    elsewhere = {"outside-hours"}
    assert {rule.code for rule in RULES} - elsewhere <= {bad.code for bad in MALICIOUS}


@pytest.mark.parametrize(
    ("minute", "allowed"), [(20 * 60, True), (5 * 60 + 59, True), (6 * 60, False), (19 * 60, False)]
)
def test_rounds_are_joined_in_the_sites_hours_only(case, minute, allowed):
    verdict = case.judge(policy={"hours": "20:00-06:00"}, local_minute=minute)
    assert verdict.allowed is allowed
    assert allowed or (verdict.code == "outside-hours" and "20:00-06:00" in verdict.sentence)


def test_without_a_clock_the_hours_are_not_judged_and_that_is_said(case):
    verdict = case.judge(policy={"hours": "20:00-06:00"})
    assert verdict.allowed
    assert "no clock to trust" in verdict.notes[0]
    assert case.judge(local_minute=0).notes == ()


def test_a_policy_that_lets_the_coordinator_sign_models_takes_part_in_nothing(case):
    key = bytes(case.world.coordinator.verify_key).hex().upper()
    forged = Signed.FromString(sign("bundle", case.manifest.payload, case.world.coordinator))
    for manifest in (forged, case.manifest):
        signers = {"friend": key, **case.policy.bundle_signers}
        verdict = case.judge(policy={"bundle_signers": signers}, manifest=manifest)
        assert verdict.code == "coordinator-signs-models"


def noisy(case, **rules):
    """A policy that adds noise, and plans that ask for it."""
    noise = plan_pb2.Noise(noise_multiplier_e6=1_000_000)
    return {"policy": {"noise_multiplier": 1.0, **rules}, "noise": noise, "word_bits": 32}


def test_a_single_step_is_taken_where_noise_covers_it(case):
    assert case.judge(training=case.training(min_local_steps=1), **noisy(case, min_local_steps=1)).allowed


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_what_authors_of_shipped_recipes_recommend_is_no_single_step(case, path):
    advice = tomllib.loads(path.read_text())["training"]
    verdict = case.judge(
        training=case.training(
            learning_rate_e9=round(advice["learning_rate"] * 1e9),
            proximal_mu_e6=round(advice.get("proximal_mu", 0) * 1e6),
            gradient_clip_e6=round(advice.get("gradient_clip", 0) * 1e6),
            batch_size=advice["batch"],
            epochs=advice["epochs"],
        )
    )
    assert verdict.allowed, verdict.sentence


def test_a_usual_proximal_term_is_no_single_step(case):
    assert case.judge(training=case.training(proximal_mu_e6=10**6)).allowed


def test_a_statistic_of_the_catalogue_is_summed_with_noise(case):
    layout = Layout(tuple(Segment(name, SegmentKind.COUNT, cap=9) for name in ("windows", "windows-rejected")))
    asked = {"purpose": plan_pb2.PURPOSE_STATISTIC, "statistic_template": "signal-quality"}
    rules = {"purposes": ("statistic",), "statistics": ("signal-quality",)}
    verdict = case.judge(layout=layout_message(layout), **asked, **noisy(case, **rules))
    assert verdict.allowed, verdict.sentence


@pytest.mark.parametrize(
    "rules",
    [
        {"min_trusted": 2},
        {"min_trustees": 0},
        {"purposes": ("gossip",)},
        {"heartbeat": "chatty"},
        {"max_close_hours": 169},
        {"bundle_signers": {"author": "zz"}},
        {"min_trusted": 10_001},
        {"min_trustees": 6},
        {"min_contributors": 0},
        {"max_share_one_site": 0.0},
        {"max_share_one_site": 1.5},
        {"max_share_one_site": math.nan},
        {"max_clip": math.nan},
        {"max_clip": math.inf},
        {"max_clip": -1.0},
        {"max_clip": 0.0},
        {"max_learning_rate": math.nan},
        {"min_learning_rate": math.nan},
        {"min_learning_rate": 0.5, "max_learning_rate": 0.1},
        {"max_proximal_pull": 1.0},
        {"max_proximal_pull": math.nan},
        {"min_gradient_clip": -0.1},
        {"max_step_ms": math.inf},
        {"max_parameters": 0},
        {"value_bits": (8, 4)},
        {"value_bits": (1, 8)},
        {"word_bits": (32, 8)},
        {"word_bits": (8, 33)},
        {"min_subsample": 0.06},
        {"min_subsample": 1.01},
        {"min_subsample": math.nan},
        {"min_examples": -1},
        {"min_sessions": 0},
        {"min_batch": 0},
        {"min_local_steps": 0},
        {"max_epochs": 0},
        {"max_close_hours": 0},
        {"max_rounds_per_day": -1},
        {"quotas": {"gossip": 1}},
        {"quotas": {"train": -1}},
        {"max_evaluations_per_checkpoint": -1},
        {"hours": "always"},
        {"hours": "20:00-20:00"},
        {"hours": "24:00-06:00"},
        {"statistics": ("patients-with-fever",)},
        {"trusted_sites": ("Birch!",)},
        {"tasks": ("",)},
    ],
)
def test_a_policy_that_protects_nothing_is_refused(rules):
    with pytest.raises(ValueError, match=f"^{next(iter(rules))}"):
        SitePolicy(**rules)
