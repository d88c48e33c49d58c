"""A training child that waits at the gates, is killed, or meets an erasure, and what becomes of its work."""

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import BUFFER_NAME
from bedside.agent.erasure import erase_session
from bedside.agent.personal.files import PersonalFiles
from bedside.agent.training.job import Job, Outcome
from bedside.agent.training.saved import SavedTraining, state_path
from bedside.agent.training.settings import GatesConfig, TrainingConfig
from bedside.agent.training.trainer import CHILD, Reading, Trainer
from bedside.core.bundle.tensors import decode_tensors
from bedside.core.errors import BedsideError, RefusedError, StoreError, UnavailableError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, MarkKind
from bedside.ondevice.confinement import read_outcome
from bedside.ondevice.training.train import Progress, Schedule
from bedside.proto.v1 import identity_pb2
from bedside.service.identity import DIRECTORY_NAME, create_identity
from bedside.service.platform import SystemClock, SystemEntropy
from quiet_machine import QUIET

CLOCK, ENTROPY = SystemClock(), SystemEntropy()
T0, SAMPLE_NS = 1_700_000_000_000_000_000, 20_000_000
STREAM, LABELS = StreamId("wrist"), ("rest", "walk", "shake")
EPOCHS = 200
SCHEDULE = Schedule(
    learning_rate=0.02, momentum=0.9, proximal_mu=0.0, batch=16, epochs=EPOCHS, min_examples=16, min_steps=4, seed=1
)


class Bench:
    """A device's directory, its trainer, and a machine whose state is what the test says."""

    def __init__(self, directory: Path, tar: bytes, signer: str, **config) -> None:
        self.directory = directory
        self.personal = PersonalFiles(directory, load_key_ring(directory / DIRECTORY_NAME))
        self.state = QUIET
        self.free_bytes = 8 << 30
        self.seen: list[int] = []
        self._others = psutil.Process().children()
        gates = GatesConfig(settle_s=0)
        self.trainer = Trainer(
            TrainingConfig(**{"gates": gates, "memory_mib": 2048, "timeout_s": 60.0, "nice": 0} | config),
            directory,
            CLOCK,
            lambda: Reading(self.state, self.free_bytes),
            look_s=0.02,
        )
        (directory / "bundle.tar").write_bytes(tar)
        result = str(directory / "delta")
        self.job = Job(
            str(directory / "bundle.tar"), (signer,), SCHEDULE, state_dir=str(directory), task="lesson", result=result
        )

    async def run(self, on_epoch=lambda epoch: None, closes_at_s: int | None = None) -> Outcome:
        def progress(line: bytes) -> None:
            self.seen.append(read_outcome(line, Progress).epoch)
            on_epoch(self.seen[-1])

        def job(budget) -> bytes:
            return msgspec.json.encode(msgspec.structs.replace(self.job, budget=budget))

        found = await self.trainer.run("lesson", CHILD, job, on_progress=progress, closes_at_s=closes_at_s)
        return read_outcome(found, Outcome)

    @property
    def saved(self) -> Path:
        return self.directory / "training" / "lesson.state"

    def children(self) -> list[psutil.Process]:
        """The processes that began since this device did: its own, and no other test's."""
        return [child for child in psutil.Process().children() if child not in self._others]

    def kill(self) -> None:
        """Kill the child, unless a line of its was read only after that."""
        for child in self.children():
            with suppress(psutil.NoSuchProcess):
                child.kill()

    def delta(self) -> dict[str, bytes]:
        return {
            name: array.tobytes() for name, array in decode_tensors((self.directory / "delta").read_bytes()).items()
        }

    def label(self, number: int) -> str:
        """A session with a label over all of it; its id."""
        store = BufferStore(self.directory / BUFFER_NAME, self.keys, CLOCK, ENTROPY)
        start_ns = T0 + number * 7 * 10**9
        end_ns = start_ns + 320 * SAMPLE_NS
        store.mark(Mark(STREAM, start_ns, start_ns, "", "t", MarkKind.SESSION_OPEN))
        values = np.random.default_rng(number).normal(number % 3, 1.0, (320, 2)).astype(np.float32)
        for at in range(0, 320, 16):
            session = store.append(Block(STREAM, start_ns + at * SAMPLE_NS, 50.0, values[at : at + 16]))
        store.mark(Mark(STREAM, start_ns, end_ns, LABELS[number % 3], "t"))
        store.mark(Mark(STREAM, end_ns, end_ns, "", "t", MarkKind.SESSION_CLOSE))
        store.close()
        return session

    @property
    def keys(self):
        return load_key_ring(self.directory / DIRECTORY_NAME)


@pytest.fixture
def bench(tmp_path, built, author):
    def make(**config) -> Bench:
        return Bench(tmp_path, built.tar, bytes(author.verify_key).hex(), **config)

    create_identity(tmp_path / DIRECTORY_NAME, identity_pb2.Role.ROLE_DEVICE, ENTROPY)
    for number in range(3):
        make().label(number)
    return make


@pytest.fixture(scope="module")
def whole(built, author, tmp_path_factory):
    """The outcome of a training that nothing disturbed."""
    path = tmp_path_factory.mktemp("whole")
    create_identity(path / DIRECTORY_NAME, identity_pb2.Role.ROLE_DEVICE, ENTROPY)
    made = Bench(path, built.tar, bytes(author.verify_key).hex())
    for number in range(3):
        made.label(number)
    return asyncio.run(made.run()).counts, made.delta()


def code_of(running) -> str:
    with pytest.raises(BedsideError) as caught:
        asyncio.run(running)
    return caught.value.code


def test_a_training_that_waits_at_the_gates_again_and_again_ends_as_one_that_never_did(bench, whole) -> None:
    device = bench()

    def warm_up(_: int) -> None:
        device.state = replace(QUIET, temperature_c=83.0)

    for _ in range(3):
        with pytest.raises(UnavailableError, match="temperature 83 C, limit 80") as caught:
            asyncio.run(device.run(warm_up))
        assert caught.value.code == "training-waits"
        assert device.trainer.sentence == "waiting: temperature 83 C, limit 80"
        assert device.saved.exists()
        assert code_of(device.run()) == "training-waits", "no child begins behind a closed gate"
        device.state = QUIET
    outcome = asyncio.run(device.run())
    assert device.seen == sorted(set(device.seen)), "no epoch was trained twice"
    assert len(device.seen) >= EPOCHS - 3, "one that ends as it is asked to stop may go untold"
    assert (outcome.counts, device.delta()) == whole
    assert device.trainer.sentence == "ready"
    device.trainer.done("lesson")
    assert list(device.saved.parent.iterdir()) == []


def test_a_killed_training_goes_on_from_what_was_saved_whatever_is_labelled_meanwhile(bench, whole) -> None:
    device, gives_way, first_to_go = bench(save_s=0.02), [], []

    def kill(_: int) -> None:
        facts = SavedTraining(device.saved, device.keys.newest).facts()
        if facts is not None and facts.position.losses:
            for child in () if gives_way else device.children():
                gives_way.append(os.sched_getscheduler(child.pid) == os.SCHED_BATCH)
                first_to_go.append(int(Path(f"/proc/{child.pid}/oom_score_adj").read_text()) > 0)
            device.kill()

    assert code_of(device.run(kill)) == "training-waits"
    assert device.trainer.sentence == "waiting: its process was killed; it goes on from what was saved"
    assert gives_way[0]
    assert first_to_go[0], "and not the agent, where memory runs out"
    reached = len(device.seen)
    device.label(3)
    outcome = asyncio.run(device.run())
    assert 1 < device.seen[reached] <= reached + 1
    assert device.seen[-1] == EPOCHS
    assert (outcome.counts, device.delta()) == whole


def test_a_training_whose_child_is_killed_without_coming_further_is_given_up_after_three(bench) -> None:
    device = bench(save_s=60.0)

    def kill(_: int) -> None:
        device.kill()

    assert [code_of(device.run(kill)) for _ in range(3)] == ["training-waits", "training-waits", "child-died"]
    assert code_of(device.run(kill)) == "training-waits", "whoever asks for it anew has three again"


def test_a_training_that_moves_on_between_its_kills_is_never_given_up(bench, monkeypatch) -> None:
    device, saved = bench(), []

    async def dies(*_: object) -> bytes:
        if moves:
            saved.append(state_path(device.directory, "lesson"))
            saved[-1].write_bytes(b"further")
            os.utime(saved[-1], ns=(len(saved), len(saved)))
        raise UnavailableError("child-died", "killed")

    monkeypatch.setattr("bedside.agent.training.trainer.run_child", dies)
    for moves in (False, False, *[True, False, False] * 4):  # noqa: B007 - read in `dies`
        assert code_of(device.run()) == "training-waits"
    assert code_of(device.run()) == "child-died"


def test_a_machine_that_cannot_be_read_stops_a_training_like_a_closed_gate(bench, whole) -> None:
    device = bench()

    def look() -> Reading:
        if len(device.seen) >= 5:
            raise StoreError("store-read", "the disk is gone")
        return Reading(device.state, device.free_bytes)

    device.trainer._look = look
    assert code_of(device.run()) == "training-waits"
    assert device.saved.exists()
    assert device.trainer.sentence == "waiting: the state of this machine cannot be read"
    device.trainer._look = lambda: Reading(device.state, device.free_bytes)
    outcome = asyncio.run(device.run())
    assert (outcome.counts, device.delta()) == whole


def test_a_training_whose_agent_ends_writes_down_where_it_is(bench, whole) -> None:
    device = bench()

    async def leave() -> None:
        reached = asyncio.Event()
        running = asyncio.create_task(device.run(lambda epoch: reached.set() if epoch == 5 else None))
        await reached.wait()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(leave())
    assert device.saved.exists()
    assert not device.children()
    outcome = asyncio.run(bench().run())
    assert (outcome.counts, device.delta()) == whole


def test_an_erasure_ends_what_is_being_trained_and_removes_what_was_saved_of_it(bench, whole) -> None:
    device = bench(save_s=0.001)
    session = device.label(3)

    def erase(epoch: int) -> None:
        if epoch == 20:
            device.trainer.forget()
            store = BufferStore(device.directory / BUFFER_NAME, device.keys, CLOCK, ENTROPY)
            erase_session(store, device.directory, session, CLOCK, personal=device.personal)
            store.close()

    assert code_of(device.run(erase)) == "training-waits"
    assert list(device.saved.parent.iterdir()) == []
    device.seen.clear()
    outcome = asyncio.run(device.run())
    assert device.seen[0] == 1
    assert (outcome.counts, device.delta()) == whole


def test_a_saved_training_of_other_windows_or_of_another_schedule_is_not_gone_on_with(bench, whole) -> None:
    device = bench()
    device.job = msgspec.structs.replace(device.job, schedule=msgspec.structs.replace(SCHEDULE, seed=2))

    def warm_up(epoch: int) -> None:
        device.state = replace(QUIET, temperature_c=83.0)

    assert code_of(device.run(warm_up)) == "training-waits"
    device.state = QUIET
    device.job = msgspec.structs.replace(device.job, schedule=SCHEDULE)
    device.seen.clear()
    outcome = asyncio.run(device.run())
    assert device.seen[0] == 1
    assert (outcome.counts, device.delta()) == whole


def test_a_device_without_the_memory_or_the_time_declines_and_says_so(bench) -> None:
    device = bench()
    device.free_bytes = 9_000_000
    with pytest.raises(RefusedError, match="and 9 MB are there for it") as caught:
        asyncio.run(device.run())
    assert caught.value.code == "unaffordable-memory"
    device.free_bytes = 8 << 30
    with pytest.raises(RefusedError, match="until the round's close") as caught:
        asyncio.run(device.run(closes_at_s=CLOCK.now_ns() // 10**9 - 1))
    assert caught.value.code == "unaffordable-time"
