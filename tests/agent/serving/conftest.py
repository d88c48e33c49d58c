"""A device with one bundle, as many checkpoints of it as a test wants, and its models started as its process does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from bedside.agent.config import load_agent_config
from bedside.agent.daemon import Agent
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.slots import ActiveModel, Slot, Verdict
from bedside.agent.serving.desk import ModelDesk
from bedside.core.bundle.manifest import MANIFEST
from bedside.core.bundle.tensors import encode_tensors
from bedside.core.bundle.verify import Bundle, verify_archive
from bedside.core.signing.envelope import digest
from bedside.service.platform import SystemClock, SystemEntropy

DEADLINE_S = 20.0


@dataclass(frozen=True, eq=False)
class Window:
    """A window that has just closed."""

    values: np.ndarray
    start_ns: int = 0
    stream: str = "wrist"
    session: str = "s"
    closed_monotonic_s: float = 0.0

    @property
    def end_ns(self) -> int:
        return self.start_ns + 1


class Running:
    """An agent whose models serve."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.pipeline = agent._pipeline
        self.desk: ModelDesk = agent._serving.desk
        self._random = np.random.default_rng(1)

    @property
    def serves(self) -> str:
        """Digest of what decides in the one slot."""
        return self.pipeline.engine.slots["tiny"].model.digest.hex()

    @property
    def slot(self) -> Slot:
        return self.agent._models.slots()["tiny"]

    @property
    def outcomes(self) -> list[str]:
        return [verdict.outcome for verdict in self.slot.verdicts]

    async def take(self, model: ActiveModel) -> None:
        await self.agent._serving.take(model)

    def judge(self, judge: Callable[[ActiveModel, ActiveModel], object]) -> None:
        """Have a test judge instead of the child."""

        async def verdict(old: ActiveModel, new: ActiveModel, _streams: object) -> Verdict:
            found = judge(old, new)
            outcome = await found if asyncio.iscoroutine(found) else found
            return Verdict(new.name, outcome, "a test says so", "accuracy", 9, 0.5, 0.5)

        object.__setattr__(self.desk._gate, "judge", verdict)

    async def decide(self, windows: int) -> None:
        """Have the engine decide windows, one after the other."""
        engine = self.pipeline.engine
        for _ in range(windows):
            engine.offer("tiny", Window(self._random.standard_normal((32, 2)).astype(np.float32)), 0)
            await engine.slots["tiny"].drained()
            await asyncio.sleep(0)

    async def until(self, good: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not good():
                await asyncio.sleep(0.005)


def always(label: int, bundle: Bundle) -> dict[str, np.ndarray]:
    """The tiny net's last layer, for one class whatever it sees."""
    return {"w2": np.zeros_like(bundle.parameters["w2"]), "b2": np.eye(3, dtype=np.float32)[label] * 4}


class Shelf:
    """The device's files of models.

    Attributes:
        bundle: the one bundle.
    """

    def __init__(self, device, tiny, author) -> None:
        self.device = device
        self.keys = (bytes(author.verify_key).hex(),)
        self.bundle: Bundle = verify_archive(tiny.tar, [bytes(author.verify_key)])
        self.own = ActiveModel(tiny.digest.hex(), "", self.keys)
        self.manifest: bytes = tiny.files[MANIFEST]
        store = ModelStore(device.path / "state")  # accepted some time ago, so that no test waits for its replay
        store.bundle_path(self.own.bundle).write_bytes(tiny.tar)
        store.activate("tiny", self.own)
        self.configure("")

    def configure(self, serving: str) -> None:
        """Have `[serving]` of agent.toml say this; no sources, so that a test decides what arrives."""
        text = f'[link]\nenabled = false\n[inference]\nruntime = "onnx"\n[serving]\n{serving}\n'
        (self.device.path / "agent.toml").write_text(text)

    def put(self, parameters: Mapping[str, np.ndarray]) -> ActiveModel:
        """A checkpoint with these shared parameters, on the disk as if it had been fetched."""
        data = encode_tensors({t.name: parameters[t.name] for t in self.bundle.manifest.shared()})
        name = digest(data).hex()
        folder = self.device.path / "state" / "models" / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.safetensors").write_bytes(data)
        return ActiveModel(self.own.bundle, name, self.keys)

    def scaled(self, factor: float) -> ActiveModel:
        """A checkpoint near the bundle's own parameters."""
        return self.put({name: array * np.float32(factor) for name, array in self.bundle.parameters.items()})

    def always(self, label: int) -> ActiveModel:
        """A checkpoint that says one class whatever it sees."""
        return self.put(self.bundle.parameters | always(label, self.bundle))

    def path(self, model: ActiveModel):
        return self.device.path / "state" / "models" / "checkpoints" / f"{model.checkpoint}.safetensors"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """Start the models of the device as its process does; at the end nothing is tidied, as after kill -9."""
        agent = Agent(self.device.path, load_agent_config(self.device.path), SystemClock(), SystemEntropy(), "1.0")
        try:
            await agent._serving.start()
            yield Running(agent)
        finally:
            agent._serving.desk.close()
            await agent._pipeline.close(1.0)
            agent._reader.close()
            agent._buffer.close()


@pytest.fixture
def shelf(device, tiny, tiny_author) -> Shelf:
    return Shelf(device, tiny, tiny_author)
