"""One device's loop against a coordinator that offers what it likes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.config import load_agent_config
from bedside.agent.daemon import Agent
from bedside.agent.personal.files import Personal, PersonalFiles, facts_of
from bedside.agent.rounds.client import RoundClient
from bedside.agent.rounds.contribution import ContributionOutcome
from bedside.agent.rounds.journal import Journal, KeptRow, OutboxRow
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.settings import RoundSettings
from bedside.agent.rounds.slots import ActiveModel
from bedside.agent.training.saved import state_path
from bedside.agent.training.trainer import Reading, Trainer
from bedside.core.bundle.tensors import encode_tensors
from bedside.core.bundle.verify import verify_archive
from bedside.core.errors import BedsideError, StoreError, TrustError
from bedside.core.securesum.device import ContributionState
from bedside.core.signing.envelope import SUITE, digest, sign_message
from bedside.proto.v1.common_pb2 import BlobRef, BlobRequest, Chunk, Signed
from bedside.proto.v1.device_pb2 import Offer
from bedside.proto.v1.round_pb2 import Header, Refusal, Result
from bedside.service.platform import SystemClock, SystemEntropy
from enrolled import enrol
from quiet_machine import QUIET

CLOCK, ENTROPY = SystemClock(), SystemEntropy()
POLICY = """\
trusted_sites = ["birch", "cedar"]
min_trusted = 3
[bundle_signers]
author = "{author}"
"""


class Ward:
    """A device, its loop, and the coordinator that it speaks with."""

    def __init__(self, device, offering) -> None:
        self.device, self.offering, self.world = device, offering, offering.world
        self.identity = enrol(device, self.world)
        config = load_agent_config(device.path)
        self.journal, self.models = Journal.open(config.state_dir), ModelStore(config.state_dir)
        self.settings = RoundSettings(config.state_dir, config.policy, config.training, 0)
        self.set_policy("")
        self.machine = QUIET
        self.trainer = Trainer(
            config.training, config.state_dir, CLOCK, lambda: Reading(self.machine, 8 << 30), look_s=0.02
        )
        self.offer, self.blobs = Offer(), {digest(offering.built.tar): offering.built.tar}
        self.asked: list[bytes] = []
        self.refusals: list[Refusal] = []
        self.client = self.make_client()

    def make_client(self) -> RoundClient:
        return RoundClient(
            self.settings,
            self.identity,
            self.journal,
            self.models,
            self,
            self.identity.sequence(),
            self.trainer,
            clock=CLOCK,
            entropy=ENTROPY,
            on_model=self.serve,
            report=lambda component, error: None,
        )

    def set_policy(self, rules: str) -> None:
        author = bytes(self.offering.author.verify_key).hex()
        self.settings.policy_path.write_text(rules + POLICY.format(author=author))

    async def serve(self, model: ActiveModel) -> tuple[str, ...]:
        self.models.activate(self.models.load(model).name, model)
        return ()

    def active(self) -> ActiveModel | None:
        slot = self.models.slots().get("tiny")
        return slot.model if slot is not None else None

    async def get_offer(self, _: object) -> Offer:
        return self.offer

    async def decline(self, signed: Signed) -> None:
        self.refusals.append(Refusal.FromString(signed.payload))

    async def begin_upload(self, header: Signed) -> object:
        pytest.fail("nothing is to be uploaded")

    async def get_blob(self, request: BlobRequest) -> AsyncIterator[Chunk]:
        self.asked.append(request.digest)
        data = self.blobs[request.digest]
        yield Chunk(offset_bytes=0, data=data, total_bytes=len(data))

    def checkpoint(self, scale: float = 1.0) -> bytes:
        bundle = verify_archive(self.offering.built.tar, [bytes(self.offering.author.verify_key)])
        return encode_tensors({t.name: bundle.parameters[t.name] * scale for t in bundle.manifest.shared()})

    def result(self, checkpoint: bytes, number: int = 1, task: str = "watch", size_bytes: int = 0) -> Offer:
        self.blobs[digest(checkpoint)] = checkpoint
        ref = BlobRef(digest=digest(checkpoint), size_bytes=size_bytes or len(checkpoint))
        result = Result(
            suite=SUITE,
            plan_digest=b"h" * 32,
            task=task,
            round_number=number,
            checkpoint=ref,
            bundle_digest=self.offering.built.digest,
        )
        return Offer(
            result=sign_message("result", result, self.world.coordinator),
            federation=sign_message("federation", self.world.federation, self.world.root),
            manifest=self.offering.manifest(),
            bundle_tar_digest=digest(self.offering.built.tar),
        )

    def plan(self) -> Offer:
        now_s = CLOCK.now_ns() // 10**9
        opening = {"issued_at_s": now_s, "not_after_s": now_s + 90_000}
        tar = {"bundle_tar_digest": digest(self.offering.built.tar)}
        return self.offering.with_changes(opening_changes=opening).make(
            issued_at_s=now_s - 5, close_at_s=now_s + 600, **tar
        )

    def stored(self) -> list[str]:
        return sorted(path.stem for path in (self.settings.state_dir / "models" / "checkpoints").iterdir())


@pytest.fixture
def ward(device, offering):
    made = Ward(device, offering)
    yield made
    made.journal.close()


async def test_a_result_is_served_once(ward) -> None:
    good = ward.checkpoint()
    ward.offer = ward.result(good)
    await ward.client.step()
    assert ward.active().checkpoint == digest(good).hex()
    await ward.client.step()
    assert ward.asked == [digest(ward.offering.built.tar), digest(good)]


async def test_checkpoints_that_do_not_fit_leave_nothing_on_the_disk(ward) -> None:
    good = ward.checkpoint()
    ward.offer = ward.result(good)
    await ward.client.step()
    for number in range(2, 8):
        ward.offer = ward.result(b"%d is no checkpoint" % number * 9, number)
        await ward.client.step()
    assert ward.stored() == [digest(good).hex()]
    assert ward.active().checkpoint == digest(good).hex()


async def test_a_checkpoint_larger_than_its_model_is_not_fetched(ward) -> None:
    ward.offer = ward.result(bytes(1 << 20))
    await ward.client.step()
    assert ward.asked == [digest(ward.offering.built.tar)]
    assert ward.stored() == []


async def test_few_checkpoints_are_kept_also_before_one_arrives(ward) -> None:
    for number in range(1, 9):
        ward.offer = ward.result(ward.checkpoint(1 - number / 100), number)
        await ward.client.step()
        assert len(ward.stored()) <= 3


async def test_one_unfinished_blob_is_kept(ward) -> None:
    directory = ward.settings.state_dir / "models" / "checkpoints"
    for name in "abc":
        (directory / f".{name}.safetensors.part").write_bytes(b"begun")
    (directory.parent / "incoming" / ".d.tar.part").write_bytes(b"begun")
    ward.offer = ward.result(ward.checkpoint())
    await ward.client.step()
    assert list(directory.parent.glob("*/.*")) == []


def test_nothing_unfinished_outlives_a_start(ward) -> None:
    root = ward.settings.state_dir / "models"
    for name in ("checkpoints/.a.safetensors.part", "incoming/.b.tar.part", "incoming/c.tar"):
        (root / name).write_bytes(b"begun")
    ward.models.drop_unfinished()
    assert [path.name for path in root.glob("*/*")] == []


async def test_a_result_of_a_task_that_the_site_takes_no_part_in_is_not_served(ward) -> None:
    ward.set_policy('tasks = ["watch"]\n')
    ward.offer = ward.result(ward.checkpoint(), task="other")
    await ward.client.step()
    assert (ward.active(), ward.asked) == (None, [])


def rot(ward, name: str) -> None:
    path = ward.settings.state_dir / "models" / "checkpoints" / f"{name}.safetensors"
    data = bytearray(path.read_bytes())
    data[-14] ^= 0x3F
    path.write_bytes(data)


async def test_a_checkpoint_that_rotted_does_not_serve_and_is_fetched_again(ward) -> None:
    good = ward.checkpoint()
    ward.offer = ward.result(good)
    await ward.client.step()
    active = ward.active()
    rot(ward, active.checkpoint)
    with pytest.raises(StoreError) as caught:
        ward.models.load(active)
    assert caught.value.code == "checkpoint-rotten"
    assert ward.stored() == []

    ward.models.activate("tiny", ActiveModel(active.bundle, "", active.signer_pks))  # what the daemon falls back to
    ward.client = ward.make_client()
    await ward.client.step()
    assert ward.active() == active
    assert ward.models.load(active).model.digest == digest(good)


async def test_after_a_start_with_a_rotten_checkpoint_the_bundles_own_parameters_serve(ward, device) -> None:
    ward.offer = ward.result(ward.checkpoint())
    await ward.client.step()
    active = ward.active()
    rot(ward, active.checkpoint)
    agent = Agent(device.path, load_agent_config(device.path), CLOCK, ENTROPY, "1.0")
    await agent._serving.start()
    assert agent._pipeline.model_digest.hex() == active.bundle
    assert ward.active().checkpoint == ""
    agent._buffer.close()
    agent._reader.close()


async def test_a_plan_that_nobody_signed_leaves_no_trace(ward) -> None:
    ward.offer = Offer(plan=Signed(payload=b"junk"), federation=ward.plan().federation)
    with pytest.raises(TrustError):
        await ward.client.step()
    assert (ward.journal.newest(), ward.refusals) == (None, [])


async def test_whatever_pace_is_asked_for_there_is_a_pause(ward) -> None:
    assert await ward.client.step() >= 0.2
    ward.offer = Offer(next_call_ms=2**32 - 1)
    assert await ward.client.step() <= 60


async def test_who_offers_junk_is_asked_ever_more_rarely(ward) -> None:
    ward.offer = ward.result(b"no checkpoint")
    ward.offer.result.signature = bytes(64)
    pauses = [await ward.client.step() for _ in range(8)]
    assert pauses[-1] > 10 > 1 > pauses[0]
    ward.offer = Offer()
    assert await ward.client.step() < 1


async def test_a_plan_is_judged_again_before_it_is_worked_for(ward) -> None:
    ward.offer = ward.plan()
    await ward.client.step()
    assert ward.journal.newest().state is ContributionState.TRAINING
    ward.set_policy('tasks = ["another"]\n')
    await ward.client.step()
    (told,) = ward.refusals
    assert (told.code, "another" in told.sentence) == ("task-not-allowed", True)
    assert ward.journal.newest().state is ContributionState.DECLINED
    assert ward.asked == []


async def test_a_plan_is_judged_again_before_the_first_byte_of_its_upload(ward) -> None:
    ward.offer = ward.plan()
    await ward.client.step()
    plan_digest = digest(ward.offer.plan.payload)
    header = sign_message("header", Header(plan_digest=plan_digest), ward.identity.signing_key).SerializeToString()
    for name in ("a.words", "a.kept"):
        (ward.settings.state_dir / "outbox" / name).write_bytes(b"w" * 9)
    row, kept = OutboxRow(plan_digest, header, "a.words", 9), KeptRow(plan_digest, "a.kept")
    ward.journal.commit_upload(row, kept, None, now_ns=1)
    ward.set_policy('tasks = ["another"]\n')
    await ward.client.step()
    assert [told.code for told in ward.refusals] == ["task-not-allowed"]
    assert (ward.journal.newest().state, ward.journal.newest().code) == (ContributionState.DROPPED, "task-not-allowed")
    assert list((ward.settings.state_dir / "outbox").iterdir()) == []


async def test_what_was_trained_while_a_session_was_erased_is_thrown_away_and_trained_again(ward, monkeypatch) -> None:
    ward.offer = ward.plan()
    outbox = ward.settings.state_dir / "outbox"
    own = ward.models.personal = PersonalFiles(ward.settings.state_dir, load_key_ring(ward.identity.directory))
    trained: list[str] = []

    async def train(trainer, job, closes_at_s) -> ContributionOutcome:
        for path in (job.target, job.kept):
            Path(path).write_bytes(b"learnt")
        trained.append(job.kept)
        norm = {"gamma0": np.full(3, len(trained), np.float32)}
        own.write_pending(job.task, Personal(facts_of("tiny", "00" * 32, ["s"]), norm), ENTROPY)
        assert job.streams == ("bed-1", "bed-2")
        if len(trained) == 1:
            ward.journal.drop_kept(now_ns=1)
        return ContributionOutcome(b"header", 6, 9, 1.0, 0.5)

    async def fetch(*_: object) -> ActiveModel:
        return ActiveModel("0" * 64, "", ())

    async def serve(_: ActiveModel) -> tuple[str, ...]:
        return ("bed-1", "bed-2")

    monkeypatch.setattr("bedside.agent.rounds.contributor.make_contribution", train)
    monkeypatch.setattr(ward.models, "fetch", fetch)
    monkeypatch.setattr(ward.client._contributor, "_on_model", serve)
    await ward.client.step()
    await ward.client.step()
    assert len(trained) == 1
    assert list(outbox.iterdir()) == list((ward.settings.state_dir / "personal").iterdir()) == []
    assert ward.journal.newest().state is ContributionState.TRAINING
    with suppress(BedsideError):  # the header is none, which ends the step at its upload
        await ward.client.step()
    assert len(trained) == 2
    assert {path.suffix for path in outbox.iterdir()} == {".words", ".kept"}
    assert own.read("local", "00" * 32).tensors["gamma0"].tolist() == [2, 2, 2]


class LaterClock:
    """An hour later."""

    def now_ns(self) -> int:
        return CLOCK.now_ns() + 3_600 * 10**9

    def monotonic_s(self) -> float:
        return CLOCK.monotonic_s() + 3_600


async def test_a_training_that_the_disk_refuses_is_told_and_tried_again_later_and_the_link_goes_on(
    ward, monkeypatch
) -> None:
    tried: list[str] = []
    told: list[tuple[str, BedsideError | None]] = []

    async def train(trainer, job, closes_at_s) -> ContributionOutcome:
        tried.append(job.task)
        raise StoreError("file-write", "no space left")

    async def fetch(*_: object) -> ActiveModel:
        return ActiveModel("0" * 64, "", ())

    async def serve(_: ActiveModel) -> tuple[str, ...]:
        return ()

    monkeypatch.setattr("bedside.agent.rounds.contributor.make_contribution", train)
    monkeypatch.setattr(ward.models, "fetch", fetch)
    contributor = ward.client._contributor
    monkeypatch.setattr(contributor, "_on_model", serve)
    monkeypatch.setattr(contributor, "_report", lambda *what: told.append(what))
    ward.offer = ward.plan()
    for _ in range(4):
        await ward.client.step()
    assert len(tried) == 1
    assert [(component, error.code) for component, error in told] == [("trainer", "file-write")]
    assert ward.journal.newest().state is ContributionState.TRAINING
    monkeypatch.setattr("bedside.agent.rounds.contributor.DISK_PAUSE_S", 0.0)
    contributor._not_before_s = 0.0
    await ward.client.step()
    assert len(tried) == 2
    contributor._clock = LaterClock()
    await ward.client.step()
    assert [told.code for told in ward.refusals] == ["closes-too-late"]


async def test_a_plan_waits_at_the_gates_and_is_declined_when_its_round_closes_meanwhile(ward, monkeypatch) -> None:
    async def fetch(*_: object) -> ActiveModel:
        return ActiveModel("0" * 64, "", ())

    async def serve(_: ActiveModel) -> tuple[str, ...]:
        return ()

    monkeypatch.setattr(ward.models, "fetch", fetch)
    monkeypatch.setattr(ward.client._contributor, "_on_model", serve)
    ward.offer = ward.plan()
    await ward.client.step()
    unfinished = state_path(ward.settings.state_dir, f"round-{ward.journal.newest().plan_digest.hex()}")
    unfinished.write_bytes(b"begun")
    ward.machine = replace(QUIET, temperature_c=91.0)
    for _ in range(2):
        await ward.client.step()
        assert ward.journal.newest().state is ContributionState.TRAINING
        assert ward.trainer.sentence == "waiting: temperature 91 C, limit 80"
        assert ward.refusals == []
        assert unfinished.exists()
    ward.client._contributor._clock = LaterClock()
    ward.offer = Offer()
    await ward.client.step()
    (told,) = ward.refusals
    assert (told.code, ward.journal.newest().state) == ("closes-too-late", ContributionState.DECLINED)
    assert ward.trainer.sentence == "ready"
    assert not unfinished.exists()


async def test_unfinished_trainings_of_plans_that_are_over_go_at_the_start(ward) -> None:
    ward.offer = ward.plan()
    await ward.client.step()
    kept = [f"round-{ward.journal.newest().plan_digest.hex()}", "own-lesson"]
    for task in (*kept, f"round-{bytes(32).hex()}"):
        state_path(ward.settings.state_dir, task).write_bytes(b"begun")
    ward.client._contributor.discard_stale()
    left = {path.stem for path in state_path(ward.settings.state_dir, "x").parent.iterdir()}
    assert left == set(kept)
