"""A local API that is served for real, on a real buffer, without a whole agent round it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.api.alarms import AlarmCalls
from bedside.agent.api.follow import AlarmFollowers, Followers
from bedside.agent.api.labels import LabelCalls
from bedside.agent.api.messages import alarm_message
from bedside.agent.api.models import ModelCalls
from bedside.agent.api.personal import PersonalCalls
from bedside.agent.api.predictions import PredictionCalls
from bedside.agent.api.quarantine import QuarantineCalls
from bedside.agent.api.server import AgentServicer, Calls, start_api
from bedside.agent.api.sessions import SessionCalls
from bedside.agent.api.sinks import SinkCalls
from bedside.agent.buffer.labels import Labels
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Alarm
from bedside.agent.buffer.store import BufferStore
from bedside.agent.client import LocalAgent
from bedside.agent.personal.report import Figures, Report
from bedside.agent.personal.view import PersonalView
from bedside.agent.rounds.models import no_such_model
from bedside.agent.rounds.slots import ActiveModel, Candidate, Slot, Verdict
from bedside.agent.serving.shadow import ShadowTable
from bedside.agent.sinks.runner import Sent
from bedside.core.errors import ProtocolError
from bedside.core.ids import StreamId
from bedside.core.samples import Block
from bedside.proto.v1 import local_pb2
from bedside.service.health import Health
from bedside.service.platform import SystemEntropy
from hand_clock import T0, HandClock

KEY = bytes(range(32))
ECG = StreamId("ecg")
GAP_S = 60.0


class Book:
    """Alarms in memory."""

    def __init__(self, followers: AlarmFollowers) -> None:
        self.alarms: list[Alarm] = []
        self.followers = followers

    def raise_alarm(self, rule: str) -> None:
        alarm = Alarm(rule, ECG, "s", "high", T0, 0.9, number=len(self.alarms) + 1)
        self.alarms.append(alarm)
        self.followers.publish(alarm_message(alarm))

    def newest(self, limit: int, *, open_only: bool) -> Sequence[Alarm]:
        return [one for one in self.alarms if not (open_only and one.acknowledged_ns)][-limit:]

    def acknowledge(self, number: int, by: str) -> Alarm:
        if not 1 <= number <= len(self.alarms):
            raise ProtocolError("no-such-alarm", f"there is no alarm {number}")
        after = replace(self.alarms[number - 1], acknowledged_ns=T0 + 1, acknowledged_by=by)
        self.alarms[number - 1] = after
        self.followers.publish(alarm_message(after))
        return after


class Loudness:
    """A model that tells loud windows from quiet ones; its explanation is the square of its own window."""

    async def predict(self, model: str, values: np.ndarray) -> local_pb2.PredictResponse:
        if model not in ("", "loudness"):
            raise ProtocolError("no-such-model", f"no model {model} serves", remedy="loudness does")
        loud = float(np.clip(np.abs(values).mean(), 0, 1))
        rows = [("loud", loud), ("quiet", 1 - loud)]
        return local_pb2.PredictResponse(
            model="loudness",
            model_digest=bytes(32),
            label=max(rows, key=lambda row: row[1])[0],
            probabilities=[local_pb2.ClassProbability(label=n, probability_e6=round(p * 1e6)) for n, p in rows],
            latency_us=7,
            outputs=[local_pb2.Output(name="level", value=20 * loud, unit="dB")] if model else [],
        )

    async def explain(self, prediction: int, segments: int, output: str = "") -> local_pb2.Explanation:
        if output == "level":
            return local_pb2.Explanation(
                prediction_id=prediction, method="occlusion", segments=segments, channels=1, output=output, unit="dB",
                effect=[0.5 * at for at in range(segments)],
            )  # fmt: skip
        effects = [at * (-1) ** at for at in range(2 * segments)]
        return local_pb2.Explanation(
            prediction_id=prediction, method="occlusion", segments=segments, channels=2, effect_e6=effects
        )


class Stored:
    """Predictions with the numbers 1 to 3 are committed; pages have two."""

    def after(self, since_id: int) -> list[local_pb2.Prediction]:
        return [local_pb2.Prediction(id=number) for number in range(since_id + 1, 4)][:2]


class Desk:
    """One slot of which everything is known, and orders that only change its name's last verdict."""

    def __init__(self) -> None:
        one, two, three = (ActiveModel("aa" * 32, f"{number:02x}" * 32, ()) for number in (1, 2, 3))
        verdict = Verdict(two.name, "refused", "worse", "balanced accuracy", 120, 0.9, 0.5, 1_750_000_000)
        candidate = Candidate(three, "shadow")
        self.slot = Slot(
            one, previous=two, candidate=candidate, waiting=candidate, withdrawn=(two,), verdicts=(verdict,)
        )
        self.table = ShadowTable(40, 3, 1, Counter({("a", "b"): 1, ("b", "b"): 2}), failed=0, dropped=4)
        self.table.latency.add(0.002)
        self.orders: list[tuple[str, str]] = []

    def slots(self):
        return {"tiny": (self.slot, self.table)}

    def views(self):
        figures = Figures(0.5, 1.0), Figures(0.75, 0.5, 0.125)
        report = Report(at_s=9, sentence="told", score="R^2", windows=50, of_all=figures[0], serves=figures[1])
        return {"tiny": PersonalView("tiny", ("mean0",), ("w2", "b2"), 1.5, True, False, report, "waits")}

    def __getattr__(self, order: str):
        async def take(name: str) -> None:
            if name != "tiny":
                raise no_such_model(name, ["tiny"])
            self.orders.append((order, name))

        return take


class Sending:
    """Sinks that note what they are asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None]] = []

    async def send_now(self, name, since_ns):
        self.asked.append((name, since_ns))
        return Sent(3, 1, "sink-status: it answers 503")


class Served:
    """What a test works on: the writer, its clock, and a socket that is served while `serving` is entered."""

    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        self.socket = folder / "run" / "agent.sock"
        path = folder / "buffer.db"
        self.store = BufferStore(path, KEY, self.clock, SystemEntropy(), gap_s=GAP_S)
        self.reader = BufferReader(path, KEY)
        self.followers = Followers()
        self.book = Book(AlarmFollowers())
        self.sending = Sending()
        self.desk = Desk()
        self.calls = Calls(
            PredictionCalls(Stored(), self.followers, Loudness()),
            SessionCalls(self.store, self.reader, self.clock, GAP_S),
            LabelCalls(Labels(self.store)),
            AlarmCalls(self.book, self.book.followers),
            QuarantineCalls(self.store, self.reader),
            SinkCalls(self.sending),
            ModelCalls(self.desk),
            PersonalCalls(self.desk),
        )

    @asynccontextmanager
    async def serving(self):
        server = await start_api(self.socket, AgentServicer(self._facts, None, self.calls), Health(self.clock, ()))
        try:
            yield
        finally:
            await server.stop(0)

    @asynccontextmanager
    async def agent(self):
        async with asyncio.timeout(30), self.serving(), LocalAgent(self.socket) as agent:
            yield agent

    def signal(self, start_s: float, seconds: float, stream: StreamId = ECG) -> str:
        """Let signal arrive, and return its session."""
        self.clock.at_s = max(self.clock.at_s, start_s + seconds)
        values = np.ones((round(250 * seconds), 2), np.int16)
        return self.store.append(Block(stream, T0 + round(start_s * 1e9), 250.0, values, unit="mV", metric="", scale=1))

    def close(self) -> None:
        self.reader.close()
        self.store.close()

    def _facts(self):
        raise AssertionError("nobody asks for the status here")


@pytest.fixture
def served(tmp_path: Path):
    made = Served(tmp_path)
    yield made
    made.close()
