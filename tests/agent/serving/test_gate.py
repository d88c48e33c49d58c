"""The gate judges both models as they serve, in a child, on windows that no training has seen."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.store import BufferStore
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.slots import ActiveModel
from bedside.agent.serving import gate_child
from bedside.agent.serving.gate import Gate, GateJob
from bedside.agent.serving.rules import ServingConfig
from bedside.agent.windows.holdout import HoldOut, Split
from bedside.agent.windows.training import collect
from bedside.core.errors import StoreError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, MarkKind
from bedside.ondevice.confinement import Limits
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.train import Schedule, train
from bedside.ondevice.windows.targets import Question
from bedside.service.platform import SystemClock, SystemEntropy

WRIST = StreamId("wrist")
LABELS = ("rest", "walk", "shake")
T0 = 1_750_000_000_000_000_000
SECONDS = 360
RATE = 50


def fill(state: Path, key: bytes) -> str:
    """One session of six minutes, whose label changes every four seconds; returns its id."""
    store = BufferStore(state / "buffer.db", key, SystemClock(), SystemEntropy())
    random, step = np.random.default_rng(3), RATE * 4
    store.mark(Mark(WRIST, T0, T0, "", "test", MarkKind.SESSION_OPEN))
    for at in range(0, SECONDS * RATE, step):
        number, start_ns = at // step % 3, T0 + at * 20_000_000
        store.append(Block(WRIST, start_ns, 50.0, random.normal(2 * number - 2, 0.7, (step, 2)).astype(np.float32)))
        store.mark(Mark(WRIST, start_ns, start_ns + step * 20_000_000, LABELS[number], "test"))
    store.close()
    with closing(BufferReader(state / "buffer.db", key)) as reader:
        (session,) = reader.sessions()
    return session.session


class Labelled:
    """The device with labelled signal, of which its secret holds out enough blocks of time."""

    def __init__(self, shelf) -> None:
        self.shelf, self.state = shelf, shelf.device.path / "state"
        self.identity = self.state / "identity"
        self.keys = load_key_ring(self.identity)
        self.question = Question.of(shelf.bundle.manifest)
        session, spec = fill(self.state, self.keys.newest), shelf.bundle.manifest.window
        starts = range(T0 + 10**9, T0 + SECONDS * 10**9, 30 * 10**9)
        secrets = (number.to_bytes(32, "big") for number in range(1, 1_000_000))
        self.secret = next(
            secret
            for secret in secrets
            if sum(HoldOut(secret, spec).role(session, at, at + 1) == "block" for at in starts) >= 5
        )
        (self.identity / "device.secret").write_bytes(self.secret)
        self.gate = Gate(
            self.state, self.identity, ServingConfig(), "onnx", SystemClock(), Limits(2 << 30, timeout_s=60)
        )

    def windows(self, role: str):
        spec = self.shelf.bundle.manifest.window
        split = Split(HoldOut(self.secret, spec), role)
        return collect(self.state / "buffer.db", self.keys, self.question, max_windows=9_999, split=split)

    def trained(self) -> ActiveModel:
        """A checkpoint that knows the classes."""
        bundle, found = self.shelf.bundle, self.windows("training")
        schedule = Schedule(0.05, 0.9, 0.0, batch=16, epochs=3, min_examples=1, min_steps=1, seed=1)
        delta = train(bundle, dict(bundle.parameters), Windows(found.x, found.y), schedule, lambda _: None).delta
        return self.shelf.put({name: array + delta.get(name, 0) for name, array in bundle.parameters.items()})

    def judge(self, old: ActiveModel, new: ActiveModel, **rules: object):
        gate = replace(self.gate, rules=ServingConfig(**rules))
        return asyncio.run(gate.judge(old, new, ()))


@pytest.fixture
def labelled(shelf) -> Labelled:
    return Labelled(shelf)


def test_held_out_windows_and_training_share_no_sample(labelled) -> None:
    trained, held = labelled.windows("training"), labelled.windows("block")
    every = collect(labelled.state / "buffer.db", labelled.keys, labelled.question, max_windows=9_999)
    assert len(held.y) > 100 < len(trained.y)
    assert len(trained.y) + len(held.y) < len(every.y)  # those on the borders
    apart = np.abs(trained.start_ns[:, None] - held.start_ns[None])
    assert apart.min() >= 32 * 20_000_000


def test_a_ruined_model_is_refused_and_a_better_one_is_not_with_both_numbers(labelled) -> None:
    good, ruined = labelled.trained(), labelled.shelf.always(1)
    told = labelled.judge(good, ruined)
    assert (told.outcome, told.score, told.model) == ("refused", "balanced accuracy", ruined.name)
    assert told.new < 0.5 < 0.8 < told.old
    assert told.windows == len(labelled.windows("block").y)
    assert "with blocks of time of sessions that are trained on" in told.sentence
    told = labelled.judge(ruined, good)
    assert (told.outcome, told.old < told.new) == ("passed", True)
    assert labelled.judge(good, ruined, gate_margin=1.0).outcome == "passed"


def test_without_enough_windows_nobody_is_judged(labelled) -> None:
    ruined = labelled.shelf.always(1)
    told = labelled.judge(labelled.shelf.own, ruined, gate_min_windows=5_000)
    assert (told.outcome, told.old) == ("not-judged", None)
    assert told.windows > 0
    assert told.sentence.startswith(f"{told.windows} validation windows in ")
    assert told.sentence.endswith("; 5000 in 5 are needed: label more, or lower gate_min_windows")
    assert labelled.judge(labelled.shelf.own, ruined, gate=False).sentence.endswith("switched off in agent.toml")


def in_this_process(labelled, new: ActiveModel, **changes: object):
    job = GateJob(
        str(labelled.state), str(labelled.identity), labelled.shelf.own, new, "onnx", (), margin=0.02, min_windows=50
    )
    return gate_child._run(msgspec.json.encode(msgspec.structs.replace(job, **changes)))


def test_no_more_windows_are_taken_than_fit_into_the_memory_for_them(labelled) -> None:
    new, window_bytes = labelled.shelf.scaled(1.1), 4 * 32 * 2
    every = in_this_process(labelled, new).windows
    assert in_this_process(labelled, new, max_bytes=(every - 9) * window_bytes).windows == every - 9


def test_what_cannot_be_compared_although_there_are_labels_is_not_let_through(labelled, monkeypatch) -> None:
    monkeypatch.setattr(gate_child, "_comparable", lambda *_: False)
    told = in_this_process(labelled, labelled.shelf.scaled(1.1))
    assert (told.outcome, "other windows" in told.sentence) == ("uncompared", True)
    told = in_this_process(labelled, labelled.shelf.scaled(1.1), min_windows=5_000)
    assert told.outcome == "not-judged", "where there is nothing to compare with"


def test_a_child_that_ends_after_the_golden_windows_refuses_nothing_for_ever(labelled, monkeypatch, tmp_path) -> None:
    says = 'import sys; sys.stdin.read(); print(\'{"progress": "golden"}\', flush=True); sys.exit(9)'
    (tmp_path / "killed_later.py").write_text(says)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("bedside.agent.serving.gate.CHILD", "killed_later")
    told = labelled.judge(labelled.shelf.own, labelled.shelf.scaled(1.1))
    assert (told.outcome, "comparing it failed" in told.sentence) == ("uncompared", True)
    (tmp_path / "killed_later.py").write_text("import sys; sys.exit(9)")
    assert labelled.judge(labelled.shelf.own, labelled.shelf.scaled(1.1)).outcome == "refused"


def test_a_file_that_rotted_is_found_before_the_swap(labelled) -> None:
    rotten = labelled.shelf.scaled(1.5)
    labelled.shelf.path(rotten).write_bytes(b"rotten")
    with pytest.raises(StoreError, match="not what was stored"):
        labelled.judge(labelled.shelf.own, rotten)


def test_answers_that_are_no_number_are_refused_without_any_label(shelf, monkeypatch) -> None:
    """What int8 parameters cannot bring about, a broken runtime can."""
    load = ModelStore.load

    def broken(self: ModelStore, active: ActiveModel):
        served = load(self, active)
        runtime = served.model.runtime
        monkeypatch.setattr(type(runtime), "predict", lambda _, x: np.full((len(x), 3), np.nan, np.float32))
        return served

    monkeypatch.setattr(ModelStore, "load", broken)
    state = shelf.device.path / "state"
    job = GateJob(str(state), str(state / "identity"), shelf.own, shelf.scaled(1.5), "onnx", (), 0.02, 50)
    told = gate_child._run(msgspec.json.encode(job))
    assert (told.outcome, told.sentence) == ("refused", "it answers windows with what is no number")


def test_a_model_is_not_held_up_by_one_that_cannot_be_opened_any_more(labelled) -> None:
    gone, new = labelled.shelf.scaled(1.2), labelled.shelf.scaled(1.3)
    labelled.shelf.path(gone).unlink()
    told = labelled.judge(gone, new)
    assert (told.outcome, "nothing to compare it with" in told.sentence) == ("not-judged", True)
