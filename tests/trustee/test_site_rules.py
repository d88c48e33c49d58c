"""What a trustee refuses to open, and to vote for, by its site's policy and its own memory."""

from __future__ import annotations

import json
import sqlite3
from functools import partial

import msgspec
import pytest

from bedside.core.bundle.layers import Dense, Flatten, Standardise, walk
from bedside.core.bundle.manifest import decode_manifest, encode_manifest, quantisation_of
from bedside.core.bundle.parameters import layer_tensors
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.securesum.plans import layout_message
from bedside.core.securesum.trustee import TrusteeState
from bedside.core.signing.envelope import digest, sign
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from bedside.service.platform import local_minute
from bedside.trustee import store as store_part
from malicious_plans import MALICIOUS, STATISTIC

NEXT = BlobRef(digest=b"n" * 32, size_bytes=10)


def toml(value):
    """A rule's value as a policy file has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {item}" for key, item in value.items()) + " }"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def write_rules(bench, **rules):
    bench.write_policy(**{name: toml(value) for name, value in rules.items()})


def code_of(bench, plan, **changes):
    word = bench.open(plan, **changes)
    return bench.said(word).code if word.kind == "refusal" else word.kind


@pytest.mark.parametrize("bad", MALICIOUS, ids=lambda bad: f"{bad.code}: {bad.name}")
def test_each_malicious_plan_is_refused_with_its_code_and_nothing_is_opened(bench, bad):
    write_rules(bench, **bad.rules)
    message = bench.world.plan_message(**bench.fields)
    bad.change(message)
    word = bench.open(bench.world.sign_plan(message))
    assert (word.kind, bench.said(word).code) == ("refusal", bad.code)
    assert all(words in bench.said(word).sentence for words in bad.words), bench.said(word).sentence
    assert list(bench.keys.stored()) == []


def test_a_plan_is_opened_in_the_sites_hours_only(bench):
    minute = local_minute(bench.clock.now_s)

    def hours(start, end):
        clock = [f"{at % 1440 // 60:02}:{at % 60:02}" for at in (start, end)]
        write_rules(bench, hours="-".join(clock))

    hours(minute + 1, minute + 60)
    assert code_of(bench, bench.plan()) == "outside-hours"
    hours(minute, minute + 1)
    assert code_of(bench, bench.plan(task="other")) == "opening"


def test_a_policy_that_names_the_coordinators_key_opens_nothing(bench):
    key = bytes(bench.world.coordinator.verify_key).hex()
    text = bench.paths.policy.read_text() + f'\nfriend = "{key}"\n'
    bench.paths.policy.write_text(text)
    assert code_of(bench, bench.plan()) == "coordinator-signs-models"


def test_a_later_round_is_opened_with_the_result_before_it_only(bench):
    plan = bench.plan(round_number=2, previous_result_digest=b"r" * 32)
    assert code_of(bench, plan, previous_result=None) == "checkpoint-outside-lineage"


def test_a_result_of_another_plan_than_the_one_opened_here_is_a_fork(bench):
    bench.close(bench.begin())
    message = bench.world.plan_message(**bench.fields)
    message.round_number = 2
    forged = bench.world.result_before(message, plan_digest=b"x" * 32)
    message.previous_result_digest = digest(forged.payload)
    assert code_of(bench, bench.world.sign_plan(message)) == "result-fork"


def test_a_result_that_opened_nothing_cannot_move_the_checkpoint(bench):
    bench.close(bench.begin())
    message = bench.world.plan_message(**bench.fields)
    message.round_number = 2
    message.checkpoint.CopyFrom(NEXT)
    message.previous_result_digest = digest(bench.world.result_before(message, cohorts=[]).payload)
    assert code_of(bench, bench.world.sign_plan(message)) == "result-fork"


# Quotas


def evaluation(bench, task, **changes):
    message = bench.world.plan_message(**bench.fields, task=task, purpose=plan_pb2.PURPOSE_EVALUATE, **changes)
    del message.layout.segments[:]
    message.layout.segments.append(plan_pb2.Segment(name="correct", kind=plan_pb2.SEGMENT_KIND_COUNT, cap=400))
    return bench.world.sign_plan(message)


def test_one_checkpoint_is_evaluated_so_many_times_whatever_the_task_is_called(bench):
    write_rules(bench, purposes=("train", "evaluate"), max_evaluations_per_checkpoint=2)
    assert [code_of(bench, evaluation(bench, task)) for task in ("a", "b")] == ["opening", "opening"]
    bench.clock.now_s += 10 * 86_400
    bench.restart(reboot=True)
    late = {"issued_at_s": bench.clock.now_s, "close_at_s": bench.clock.now_s + 600}
    assert code_of(bench, evaluation(bench, "c", **late)) == "too-many-evaluations"


def test_each_purpose_has_its_quota_of_a_day(bench):
    write_rules(bench, purposes=("train", "evaluate"), quotas={"evaluate": 1}, max_rounds_per_day=3)
    assert code_of(bench, evaluation(bench, "a")) == "opening"
    assert code_of(bench, evaluation(bench, "b")) == "too-many-of-purpose"
    assert [code_of(bench, bench.plan(task=task)) for task in ("c", "d")] == ["opening", "opening"]
    assert code_of(bench, bench.plan(task="e")) == "too-many-rounds"


def test_closing_a_round_late_does_not_use_up_another_day(bench):
    write_rules(bench, max_rounds_per_day=1)
    begun = bench.begin()
    bench.clock.now_s += 86_401
    bench.close(begun)
    late = {"issued_at_s": bench.clock.now_s, "close_at_s": bench.clock.now_s + 600}
    assert code_of(bench, bench.plan(task="other", **late)) == "opening"


# Sets


def answer(bench, begun, entries=None):
    vote = bench.seal(begun, entries)
    return bench.reveal(begun, bench.others_vote(begun, vote), entries)


def without(bench, begun, *numbers):
    gone = {digest(bench.world.devices[number].credential.signed.payload) for number in numbers}
    return [entry for entry in begun.entries if digest(entry.credential.payload) not in gone]


def test_the_same_inputs_over_a_set_that_lacks_one_device_are_not_voted_for(bench):
    answer(bench, bench.begin())
    again = bench.begin(bench.plan(task="renamed"))
    assert bench.code(bench.seal, again, without(bench, again, 0)) == "set-differs-too-little"
    assert bench.store.word(bench.key(again), "vote") is None
    assert bench.store.round(bench.key(again)).code == "set-differs-too-little"
    assert bench.code(bench.seal, again, without(bench, again, 7)) == "set-differs-too-little", (
        "a trusted peer's device"
    )
    assert bench.seal(again).kind == "vote", "the very same set tells nothing new"


def test_a_set_that_differs_by_enough_devices_is_voted_for(bench):
    answer(bench, bench.begin())
    again = bench.begin(bench.plan(task="renamed"))
    assert bench.seal(again, without(bench, again, 0, 3, 6)).kind == "vote"


@pytest.mark.parametrize("reboot", [False, True], ids=["kill -9", "power cut"])
@pytest.mark.parametrize("answered", [False, True], ids=["voted", "answered"])
def test_neither_a_kill_nor_a_power_cut_makes_a_trustee_forget_a_set(bench, reboot, answered):
    begun = bench.begin()
    vote = bench.seal(begun)
    if answered:
        bench.reveal(begun, bench.others_vote(begun, vote))
    bench.restart(reboot=reboot)
    again = bench.begin(bench.plan(task="renamed"))
    assert bench.code(bench.seal, again, without(bench, again, 0)) == "set-differs-too-little"


def test_no_vote_stands_whose_set_could_not_be_remembered(bench, monkeypatch):
    def fail(tx, key, members):
        raise sqlite3.OperationalError("disk full")

    begun = bench.begin()
    with monkeypatch.context() as patch:
        patch.setattr(store_part, "note_members", fail)
        assert bench.code(bench.seal, begun) == "store-write"
    assert bench.store.round(bench.key(begun)).state is TrusteeState.OPEN
    assert bench.seal(begun).kind == "vote"


def test_a_set_whose_key_was_burned_was_never_opened_and_does_not_count(bench):
    begun = bench.begin()
    bench.seal(begun)
    bench.close(begun)
    again = bench.begin(bench.plan(task="renamed"))
    assert bench.seal(again, without(bench, again, 0)).kind == "vote"


def moved(bench):
    message = bench.world.plan_message(**bench.fields, round_number=2)
    message.checkpoint.CopyFrom(NEXT)
    message.previous_result_digest = digest(bench.world.result_before(message).payload)
    return bench.world.sign_plan(message)


@pytest.mark.parametrize("guarded", [False, True])
def test_training_that_goes_on_is_guarded_where_the_site_says_so(bench, guarded):
    write_rules(bench, trusted_sites=("birch", "cedar"), min_trusted=3, guard_membership=guarded)
    answer(bench, bench.begin())
    second = bench.begin(moved(bench))
    if guarded:
        assert bench.code(bench.seal, second, without(bench, second, 0)) == "set-differs-too-little"
        assert bench.seal(second).kind == "vote"
    else:
        assert bench.seal(second, without(bench, second, 0)).kind == "vote"


def standardise_together(bench):
    """Its model has a layer that standardises by the federation's moments, and sends its devices' own."""
    layers = (Standardise("shared"), Flatten(), Dense(2))
    steps = walk(layers, (4, 1), 2)
    *specs, ranges = layer_tensors(steps)
    parameters = (*specs, msgspec.structs.replace(ranges, shared=False))
    changed = {"layers": layers, "parameters": parameters, "quantisation": quantisation_of(steps, 63)}
    manifest = encode_manifest(msgspec.structs.replace(decode_manifest(bench.manifest.payload), **changed))
    bench.manifest = Signed.FromString(sign("bundle", manifest, bench.world.author))
    slots = tuple(TensorSlot(spec.name, spec.shape) for spec in specs)
    values = Segment("parameters", SegmentKind.VALUE, slots, clip_e6=10**6, bits=8, rotation_block=4)
    counts = (Segment(name, SegmentKind.COUNT, cap=400) for name in ("examples", "correct"))
    bundle = BlobRef(digest=digest(manifest), size_bytes=100)
    bench.fields = {"bundle": bundle, "layout": layout_message(Layout((values, *counts)))}


def test_rounds_that_sum_observed_moments_are_guarded_from_any_state(bench):
    write_rules(bench, trusted_sites=("birch", "cedar"), min_trusted=3, guard_membership=False)
    standardise_together(bench)
    answer(bench, bench.begin())
    second = bench.begin(moved(bench))
    assert bench.code(bench.seal, second, without(bench, second, 0)) == "set-differs-too-little"
    assert bench.seal(second).kind == "vote"


def test_noise_that_only_the_plan_promises_does_not_lift_the_guard(bench, monkeypatch):
    """A millionth of a multiplier covers nothing: only what the site itself asks for counts."""
    answer(bench, bench.begin())
    opening = partial(bench.world.opening_message, noise_multiplier_e6=1)
    monkeypatch.setattr(bench.world, "opening_message", opening)
    again = bench.begin(bench.plan(task="renamed", noise=plan_pb2.Noise(noise_multiplier_e6=1)))
    assert bench.code(bench.seal, again, without(bench, again, 0)) == "set-differs-too-little"


def test_no_site_fills_more_of_a_set_than_the_policy_says(bench):
    begun = bench.begin()
    write_rules(bench, trusted_sites=("birch", "cedar"), min_trusted=3, max_share_one_site=0.5)
    own = [entry for entry in begun.entries if entry in without(bench, begun, 3, 4, 5, 6, 7)]
    assert bench.code(bench.seal, begun, own) == "one-site-dominates"
    assert bench.seal(begun).kind == "vote"


def test_a_minimum_that_was_raised_after_the_opening_holds_at_the_vote(bench):
    begun = bench.begin()
    write_rules(bench, trusted_sites=("birch", "cedar"), min_trusted=9)
    assert bench.code(bench.seal, begun) == "min-trusted"


# A device is in one answer of a task's round


def test_a_round_has_one_plan_so_that_no_device_is_in_two_answers_of_it(bench):
    answer(bench, bench.begin())
    assert code_of(bench, bench.plan(max_contributors=99)) == "round-number-fork"


def test_a_site_in_two_cohorts_makes_no_plan(bench):
    cohorts = [plan_pb2.Cohort(), plan_pb2.Cohort()]
    for index, cohort in enumerate(cohorts):
        cohort.CopyFrom(bench.world.plan_message().cohorts[0])
        cohort.index = index
    assert bench.code(bench.plan, cohorts=cohorts) == "bad-plan"


def test_a_device_of_a_site_of_another_cohort_is_in_no_set_of_this_one(bench):
    cohorts = [plan_pb2.Cohort(), plan_pb2.Cohort(index=1, sites=["cedar"])]
    cohorts[0].CopyFrom(bench.world.plan_message().cohorts[0])
    cohorts[0].sites.remove("cedar")
    cohorts[1].trustees.append(cohorts[0].trustees[2])
    begun = bench.begin(bench.plan(cohorts=cohorts))
    assert bench.code(bench.seal, begun) == "wrong-site"
    assert bench.seal(begun, without(bench, begun, 6, 7)).kind == "vote"


def test_a_statistic_of_the_catalogue_is_opened_with_noise(bench):
    rules = {"purposes": ("statistic",), "statistics": ("signal-quality",), "noise_multiplier": 1.0}
    write_rules(bench, **rules)
    message = bench.world.plan_message(**bench.fields, purpose=STATISTIC, statistic_template="signal-quality")
    del message.layout.segments[:]
    for name in ("windows", "windows-rejected"):
        message.layout.segments.append(plan_pb2.Segment(name=name, kind=plan_pb2.SEGMENT_KIND_COUNT, cap=9))
    message.noise.noise_multiplier_e6 = 1_000_000
    message.word_bits = 32
    assert code_of(bench, bench.world.sign_plan(message)) == "opening"
