"""The training child end to end: real buffer, real bundle, a federation in memory; the opened sum is read back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from nacl.signing import SigningKey

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import BUFFER_NAME
from bedside.agent.personal.files import Personal, PersonalFiles, facts_of
from bedside.agent.rounds.contribution import ContributionJob, make_contribution
from bedside.agent.rounds.kept import KeptUpdate
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.slots import ActiveModel
from bedside.agent.training.settings import TrainingConfig
from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import load_recipe
from bedside.core.codec import Layout, SegmentKind, TensorSlot, decode_sum
from bedside.core.ids import StreamId
from bedside.core.policy import judge_plan
from bedside.core.samples import Block, Mark, MarkKind
from bedside.core.securesum.aggregator import Aggregate
from bedside.core.securesum.messages import openings_digest
from bedside.core.securesum.plans import layout_message, rotation_seed
from bedside.core.securesum.trustee import judge_set, mask_sum
from bedside.core.signing.envelope import SUITE, digest, parse_strict, sign_message
from bedside.core.signing.trust import open_credential, subject_of
from bedside.proto.v1 import identity_pb2, plan_pb2
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.round_pb2 import Header
from bedside.proto.v1.trustee_pb2 import HeaderEntry
from bedside.service.identity import Identity, Pins, create_identity
from bedside.service.platform import SystemClock, SystemEntropy
from quiet_machine import quiet_trainer

TINY = Path(__file__).parents[2] / "recipes" / "tiny.toml"
T0 = 1_700_000_000_000_000_000
STREAM = StreamId("wrist")
LABELS = ("rest", "walk", "shake")
WINDOWS = 3 * 19
"""Windows of 32 samples every 16 in three sessions of 320."""
TRAINING = plan_pb2.Training(
    level=plan_pb2.LEVEL_Q1,
    epochs=8,
    batch_size=8,
    learning_rate_e9=20_000_000,
    momentum_e6=500_000,
    weighting=plan_pb2.WEIGHTING_UNIFORM,
    min_examples=40,
    max_examples=400,
    min_local_steps=4,
    min_sessions=1,
)


def fill_buffer(path: Path, key: bytes) -> None:
    """Three sessions, each with one label over all of it."""
    store, generator = BufferStore(path, key, SystemClock(), SystemEntropy()), np.random.default_rng(8)
    for number, label in enumerate(LABELS):
        start_ns, end_ns = T0 + number * 7 * 10**9, T0 + number * 7 * 10**9 + 320 * 20_000_000
        store.mark(Mark(STREAM, start_ns, start_ns, "", "test", MarkKind.SESSION_OPEN))
        values = generator.normal(number, 1.0, (320, 2)).astype(np.float32)
        for at in range(0, 320, 2):
            store.append(Block(STREAM, start_ns + at * 20_000_000, 50.0, values[at : at + 2]))
        store.mark(Mark(STREAM, start_ns, end_ns, label, "test"))
        store.mark(Mark(STREAM, end_ns, end_ns, "", "test", MarkKind.SESSION_CLOSE))
    store.close()


@dataclass
class Member:
    """A device of the world whose keys lie in a real identity directory."""

    state_dir: Path
    identity: Identity
    model: ActiveModel
    offering: object

    def job(self, offer, sequence: int = 1, freed: str = "") -> ContributionJob:
        return ContributionJob(
            offer=offer.SerializeToString(deterministic=True),
            identity_dir=str(self.identity.directory),
            state_dir=str(self.state_dir),
            model=self.model,
            target=str(self.state_dir / "words"),
            kept=str(self.state_dir / "kept"),
            freed=freed,
            sequence=sequence,
            task="round-test",
        )

    def contribute(self, offer, freed: str = ""):
        trainer = quiet_trainer(self.state_dir, TrainingConfig(memory_mib=2048, timeout_s=60, nice=0))
        return asyncio.run(make_contribution(trainer, self.job(offer, freed=freed), None))


def join(tmp_path: Path, offering) -> Member:
    """Make a device with labelled signal a member of the offering's world."""
    world = offering.world
    identity = create_identity(tmp_path / "identity", identity_pb2.Role.ROLE_DEVICE, SystemEntropy())
    enrol(world, identity)
    fill_buffer(tmp_path / BUFFER_NAME, load_key_ring(identity.directory).newest)
    store = ModelStore(tmp_path)
    store.bundle_path(offering.built.digest.hex()).write_bytes(offering.built.tar)
    model = ActiveModel(offering.built.digest.hex(), "", (bytes(offering.author.verify_key).hex(),))
    return Member(tmp_path, identity, model, offering)


@pytest.fixture
def member(tmp_path, offering) -> Member:
    return join(tmp_path, offering)


def enrol(world, identity: Identity) -> None:
    """Let alder's authority sign the identity's keys, and put it on the roster."""
    site = world.sites["alder"]
    role = identity_pb2.ROLE_DEVICE
    message = identity_pb2.Credential(
        suite=SUITE,
        federation="test",
        site=site.name,
        role=role,
        subject=subject_of(role, identity.sign_pk),
        sign_pk=identity.sign_pk,
        tls_key_digest=digest(b"tls"),
        issued_at_s=1_800_000_000,
        not_after_s=3_600_000_000,
    )
    signed = sign_message("credential", message, site.authority)
    pins = Pins(
        federation="test",
        root_pk=bytes(world.root.verify_key).hex(),
        authority_pk=bytes(site.authority.verify_key).hex(),
        ca_digest="c" * 64,
        site=site.name,
        enrolment_address="localhost:1",
    )
    identity.save_pins(pins)
    identity.save_credential(signed)
    party = type(site.trustee)(identity.signing_key, open_credential(signed, bytes(site.authority.verify_key)))
    site.devices.append(party)


def test_the_opened_sum_of_one_device_counts_exactly_its_windows(member, offering) -> None:
    world = offering.world
    plan, openings, secrets = offering.open(training=TRAINING)
    outcome = member.contribute(offering.offer(plan, openings))
    packed = (member.state_dir / "words").read_bytes()
    assert outcome.examples == WINDOWS
    assert outcome.size_bytes == len(packed)
    assert outcome.loss_after < outcome.loss_before - 0.1

    # Beside it two devices whose words are known: the sum less theirs is what the child encoded.
    entry = HeaderEntry(header=parse_strict(Signed, outcome.header), credential=member.identity.credential.signed)
    known = [world.random_words(plan, seed) for seed in (1, 2)]
    others = [world.sites[name].devices[0] for name in ("birch", "cedar")]
    made = [world.contribute(plan, openings, party, words) for party, words in zip(others, known, strict=True)]
    headers = world.header_set([entry, *(header for header, _ in made)])
    total = Aggregate(plan.layout, 16)
    for upload in (packed, *(upload for _, upload in made)):
        total.add_upload(upload)
    for opening in openings:
        secret = secrets[opening.credential.site]
        checked = judge_set(plan, 0, openings, headers, world.trust(), opening, secret)
        total.subtract_answer(mask_sum(plan, checked))
    own = total.opened(3, len(openings)).copy()
    for words in known:
        own -= words
    decoded = decode_sum(own, plan.layout, rotation_seed(plan.digest, openings_digest(openings)), 1, word_bits=16)
    assert decoded.counts["examples"] == WINDOWS
    assert 0 <= decoded.counts["correct"] <= WINDOWS
    assert set(decoded.tensors) == {tensor.name for tensor in offering.built.manifest.shared()}
    norm = np.sqrt(sum(float(np.sum(tensor**2)) for tensor in decoded.tensors.values()))
    assert 0.01 < norm < 1.2


def test_a_freed_delta_is_encoded_again_for_the_next_plan_without_training(member, offering) -> None:
    first = member.contribute(offering.make(training=TRAINING))
    freed = member.state_dir / "freed"
    (member.state_dir / "kept").rename(freed)
    again = offering.make(training=TRAINING, round_number=2, previous_result_digest=b"r" * 32)
    second = member.contribute(again, freed=str(freed))
    assert not first.reused
    assert second.reused
    assert second.examples == WINDOWS
    assert not (member.state_dir / "kept").exists(), "nothing was trained"


def test_a_freed_delta_of_another_training_is_left_and_the_device_trains(member, offering) -> None:
    member.contribute(offering.make(training=TRAINING))
    freed = member.state_dir / "freed"
    (member.state_dir / "kept").rename(freed)
    training = plan_pb2.Training()
    training.CopyFrom(TRAINING)
    training.epochs += 1
    assert not member.contribute(offering.make(training=training), freed=str(freed)).reused


def test_a_freed_delta_that_is_damaged_is_left_and_the_device_trains(member, offering) -> None:
    (member.state_dir / "freed").write_bytes(b"no delta")
    assert not member.contribute(offering.make(training=TRAINING), freed=str(member.state_dir / "freed")).reused


def test_two_runs_of_the_child_never_share_a_mask(member, offering) -> None:
    offer = offering.make(training=TRAINING)
    first, words = member.contribute(offer), (member.state_dir / "words").read_bytes()
    second = member.contribute(offer)
    keys = {parse_strict(Header, parse_strict(Signed, o.header).payload).x25519_pk for o in (first, second)}
    assert len(keys) == 2
    assert (member.state_dir / "words").read_bytes() != words


def test_too_few_windows_are_declined_with_their_reason_and_leave_no_words(member, offering, refusal) -> None:
    training = plan_pb2.Training()
    training.CopyFrom(TRAINING)
    training.min_examples = WINDOWS + 1
    assert refusal(lambda: member.contribute(offering.make(training=training))) == "too-few-examples"
    training.CopyFrom(TRAINING)
    training.min_sessions = 4
    assert refusal(lambda: member.contribute(offering.make(training=training))) == "too-few-sessions"
    assert not (member.state_dir / "words").exists()


def test_the_child_does_not_believe_a_strangers_plan_in_the_parents_file(member, offering, refusal) -> None:
    offer = offering.make(training=TRAINING)
    offer.plan.CopyFrom(sign_message("plan", offering.plan(training=TRAINING).plan, SigningKey(b"s" * 32)))
    assert refusal(lambda: member.contribute(offer)) == "stranger-plan"
    assert not (member.state_dir / "words").exists()


def test_a_checkpoint_that_rotted_is_not_trained_from(member, offering, refusal) -> None:
    checkpoint = "c" * 64
    path = ModelStore(member.state_dir).checkpoint_path(checkpoint)
    path.write_bytes(b"these bytes have another digest")
    member.model = msgspec.structs.replace(member.model, checkpoint=checkpoint)
    assert refusal(lambda: member.contribute(offering.make(training=TRAINING))) == "checkpoint-rotten"
    assert not path.exists()


LOCAL = {"gamma0", "beta0", "mean0", "variance0"}


@pytest.fixture(scope="session")
def normed(tiny_author):
    """The tiny net with a local batch norm."""
    tiny = load_recipe(str(TINY))
    layers = (tiny.layers[0], {"kind": "batchnorm"}, *tiny.layers[1:])
    return build_bundle(msgspec.structs.replace(tiny, layers=layers), tiny_author)


@pytest.fixture
def personal_member(tmp_path, offering, normed) -> Member:
    return join(tmp_path, offering.with_changes(built=normed))


@pytest.fixture
def files(personal_member) -> PersonalFiles:
    return PersonalFiles(personal_member.state_dir, load_key_ring(personal_member.identity.directory))


def test_local_tensors_are_kept_sealed_and_are_in_nothing_that_is_sent(personal_member, files) -> None:
    offering, bundle = personal_member.offering, personal_member.model.bundle
    plan, openings, _ = offering.open(training=TRAINING)
    personal_member.contribute(offering.offer(plan, openings))
    assert files.adopt("round-test", "local", bundle, files.erasures)
    kept = files.read("local", bundle)
    assert set(kept.tensors) == LOCAL
    assert len(kept.facts.sessions) == 3
    initial = ModelStore(personal_member.state_dir)
    parameters = initial.parameters(personal_member.model, initial.read_bundle(personal_member.model))
    moved = {name for name, array in kept.tensors.items() if not np.allclose(array, parameters[name])}
    assert moved == LOCAL

    update = KeptUpdate(
        personal_member.state_dir / "kept", load_key_ring(personal_member.identity.directory).newest, plan.layout
    )
    named = [slot.name for segment in plan.layout.segments for slot in segment.slots]
    assert not LOCAL & set(named)
    sent = [
        piece
        for index, segment in enumerate(plan.layout.segments)
        if segment.kind is SegmentKind.VALUE
        for piece in update.pieces(index)
    ]
    shared = sum(int(np.prod(spec.shape)) for spec in offering.built.manifest.shared())
    assert np.concatenate(sent).nonzero()[0].max() < shared, "behind them is padding"
    needles = [array.tobytes() for array in kept.tensors.values()]
    needles += [(array - parameters[name]).tobytes() for name, array in kept.tensors.items()]
    plain = b"".join(piece.tobytes() for piece in sent)
    for path in personal_member.state_dir.rglob("*"):
        data = path.read_bytes() if path.is_file() else plain
        assert not any(needle in data for needle in needles), path

    # what serves and what the next round begins with
    store = ModelStore(personal_member.state_dir, personal=files)
    begins = store.parameters(personal_member.model, store.read_bundle(personal_member.model))
    assert all(np.array_equal(begins[name], kept.tensors[name]) for name in LOCAL)
    assert all(np.array_equal(begins[name], parameters[name]) for name in parameters.keys() - LOCAL)

    # the next round goes on from there, and is learnt from both
    personal_member.contribute(offering.make(training=TRAINING))
    files.adopt("round-test", "local", bundle, files.erasures)
    again = files.read("local", bundle)
    assert not np.array_equal(again.tensors["gamma0"], kept.tensors["gamma0"])
    assert np.abs(again.tensors["gamma0"] - 1).max() > np.abs(kept.tensors["gamma0"] - 1).max()


def test_local_tensors_of_another_model_are_not_laid_over_this_one(personal_member, files) -> None:
    store = ModelStore(personal_member.state_dir, personal=files)
    bundle = store.read_bundle(personal_member.model)
    for tensors in ({"w0": np.zeros_like(bundle.parameters["w0"])}, {"mean0": np.zeros(99, np.float32)}):
        made = Personal(facts_of("tiny", personal_member.model.bundle, []), tensors)
        files.write_pending("task", made, SystemEntropy())
        files.adopt("task", "local", personal_member.model.bundle, files.erasures)
        loaded = store.parameters(personal_member.model, bundle)
        assert all(np.array_equal(loaded[name], bundle.parameters[name]) for name in loaded)


def test_a_plan_that_asks_for_one_of_them_is_refused(personal_member) -> None:
    offering, honest = personal_member.offering, personal_member.offering.layout()
    values = honest.segments[0]
    greedy = Layout((replace(values, tensors=(*values.tensors, TensorSlot("gamma0", (8,)))), *honest.segments[1:]))

    def code(layout) -> str:
        plan = offering.plan(training=TRAINING, layout=layout_message(layout))
        manifest, rules = offering.manifest(), offering.standing().policy
        return judge_plan(plan, rules, manifest, own_site="alder", previous=None, now_s=None, local_minute=None).code

    assert code(greedy) == "layout-not-the-models"
    assert code(honest) != "layout-not-the-models"
