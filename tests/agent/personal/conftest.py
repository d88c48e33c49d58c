"""A device with labelled signal of its own, and a model with local norms that serves on it."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.store import BufferStore
from bedside.agent.personal.desk import PersonalDesk, Setting
from bedside.agent.personal.files import PersonalFiles
from bedside.agent.personal.settings import PersonalConfig
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.slots import ActiveModel
from bedside.agent.training.settings import TrainingConfig
from bedside.agent.windows.holdout import HoldOut
from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import load_recipe
from bedside.core.bundle.tensors import encode_tensors
from bedside.core.bundle.verify import verify_archive
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, MarkKind
from bedside.core.signing.envelope import digest
from bedside.service.platform import SystemClock, SystemEntropy
from quiet_machine import quiet_trainer

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny.toml"
CLOCK, ENTROPY = SystemClock(), SystemEntropy()
WRIST = StreamId("wrist")
LABELS = ("rest", "walk", "shake")
T0 = 1_750_000_000_000_000_000
SECONDS, RATE, STEP = 120, 50, 200
SESSIONS = 3


@pytest.fixture(scope="session")
def local_tiny(tiny_author):
    """The tiny net behind a layer that standardises, with a batch norm: both local."""
    tiny = load_recipe(str(RECIPE))
    layers = ({"kind": "standardise"}, tiny.layers[0], {"kind": "batchnorm"}, *tiny.layers[1:])
    return build_bundle(msgspec.structs.replace(tiny, layers=layers), tiny_author)


def fill(state: Path, key: bytes) -> list[str]:
    """Sessions of two minutes, an hour apart, whose label changes every four seconds; returns their ids."""
    store = BufferStore(state / "buffer.db", key, CLOCK, ENTROPY)
    random = np.random.default_rng(3)
    for session in range(SESSIONS):
        begin_ns = T0 + session * 3_600 * 10**9
        store.mark(Mark(WRIST, begin_ns, begin_ns, "", "test", MarkKind.SESSION_OPEN))
        for at in range(0, SECONDS * RATE, STEP):
            number, start_ns = at // STEP % 3, begin_ns + at * 20_000_000
            values = random.normal(0, 0.3 + number, (STEP, 2)) * [1, 4] + [30, -5]
            store.append(Block(WRIST, start_ns, 50.0, values.astype(np.float32)))
            store.mark(Mark(WRIST, start_ns, start_ns + STEP * 20_000_000, LABELS[number], "test"))
    store.close()
    with closing(BufferReader(state / "buffer.db", key)) as reader:
        return [session.session for session in reader.sessions()]


def secret_that_holds_out_blocks(sessions, spec) -> bytes:
    """A device's secret that holds out some blocks of time of these sessions, and none of them whole."""
    starts = [T0 + session * 3_600 * 10**9 + at * 10**9 for session in range(SESSIONS) for at in range(1, SECONDS, 30)]
    places = [(sessions[number // (len(starts) // SESSIONS)], at) for number, at in enumerate(starts)]
    for number in range(1, 1_000_000):
        hold_out = HoldOut(number.to_bytes(32, "big"), spec)
        if sum(hold_out.role(session, at, at + 1) == "block" for session, at in places) >= 5:
            return number.to_bytes(32, "big")
    raise AssertionError("no such secret")


class Home:
    """One device.

    Attributes:
        reopened: names of slots whose model was to be opened again.
        faults: what was reported of training.
    """

    def __init__(self, device, built, author, **config) -> None:
        self.device, self.state = device, device.path / "state"
        self.identity = self.state / "identity"
        self.bundle = verify_archive(built.tar, [bytes(author.verify_key)])
        self.active = ActiveModel(self.bundle.digest.hex(), "", (bytes(author.verify_key).hex(),))
        self.ring = load_key_ring(self.identity)
        self.sessions = fill(self.state, self.ring.newest)
        self.secret = secret_that_holds_out_blocks(self.sessions, self.bundle.manifest.window)
        (self.identity / "device.secret").write_bytes(self.secret)
        self.files = PersonalFiles(self.state, self.ring)
        self.models = ModelStore(self.state, wish="onnx", personal=self.files)
        self.models.bundle_path(self.active.bundle).write_bytes(built.tar)
        self.models.activate("tiny", self.active)
        self.reopened: list[str] = []
        self.faults: list[object] = []
        self.trainer = quiet_trainer(self.state, TrainingConfig(memory_mib=2048, timeout_s=60, nice=0))
        self.configure(**config)

    def configure(self, **config) -> None:
        setting = Setting(PersonalConfig(**config), self.state, self.identity, "onnx", 50, trains=True)
        self.desk = PersonalDesk(
            setting, self.models, self.files, self.trainer, CLOCK, lambda _: (), self.faults.append
        )
        self.desk.reopen = self.reopen

    async def reopen(self, name: str) -> None:
        self.reopened.append(name)

    def make(self):
        """What the desk makes of the model now."""
        asyncio.run(self.desk.make("tiny"))
        return self.files.tuned(self.active.bundle, self.models.slots()["tiny"].model.name)

    def checkpoint(self, scale: float = 1.0) -> ActiveModel:
        """Shared parameters near the bundle's own, as if a round had brought them."""
        shared = {t.name: self.bundle.parameters[t.name] * np.float32(scale) for t in self.bundle.manifest.shared()}
        data = encode_tensors(shared)
        name = digest(data).hex()
        self.models.checkpoint_path(name).write_bytes(data)
        return msgspec.structs.replace(self.active, checkpoint=name)


@pytest.fixture
def home(device, local_tiny, tiny_author) -> Home:
    return Home(device, local_tiny, tiny_author, fine_tune=True, temperature=True, epochs=12)
