"""The sample path: what the disk refuses is still decided, whose it is stays known, and the erased leave nothing."""

from __future__ import annotations

import asyncio
import math
import threading
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from bedside.agent.alarms.desk import AlarmDesk
from bedside.agent.api.follow import AlarmFollowers, Followers
from bedside.agent.api.sessions import SessionCalls
from bedside.agent.buffer.ahead import RETRY_S
from bedside.agent.buffer.committer import Committer
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.store import BufferStore
from bedside.agent.buffer.turn import PATIENCE_S
from bedside.agent.config import AlarmRule
from bedside.agent.inference.answers import ModelAnswers
from bedside.agent.inference.model import Model
from bedside.agent.pipeline import Pipeline
from bedside.agent.rounds.models import ServedModel
from bedside.agent.windows.retention import Retention, RetentionRules
from bedside.core.bundle.manifest import Targets, WindowSpec
from bedside.core.bundle.preprocessing import ChannelReference
from bedside.core.errors import MalformedError, ProtocolError, StoreError
from bedside.core.samples import Block, Mark, MarkKind, Record
from bedside.ondevice.heads import Head
from bedside.ondevice.windows.cutter import MISFIT_S
from bedside.service.platform import SystemEntropy

S = 1_000_000_000
KEY = b"k" * 32
DEADLINE_S = 20.0
WRIST = WindowSpec("wrist", 2, 50.0, 10, 10, (1.0, 0.0), (2.0, 1.0))
VITALS = WindowSpec("bed", 2, 1.0, 1, 1, (0.0, 0.0), (1.0, 1.0), fields=("spo2", "pulse"))


class Clock:
    def __init__(self) -> None:
        self.s = 1_000.0

    def now_ns(self) -> int:
        return int(self.s * S)

    def monotonic_s(self) -> float:
        self.s += 1e-6  # time passes while one looks
        return self.s


class Slope:
    """Answers with a probability that rises with the first half of channel 0, and does not see the rest."""

    name = "onnx"

    def predict(self, x: np.ndarray) -> np.ndarray:
        seen = x[:, : max(1, x.shape[1] // 2), 0].mean(axis=1)
        return np.stack([-seen, seen], axis=1).astype(np.float32)


def served(spec: WindowSpec, name: str = "har", digest: bytes = b"m" * 32) -> ServedModel:
    return ServedModel(
        name, Model(digest, Head("classification", ("low", "high")), (spec.length, spec.channels), Slope()), spec
    )


class Device:
    """A buffer, a pipeline, and who hears of what."""

    def __init__(self, path, *rules: AlarmRule) -> None:
        self.path, self.clock = path, Clock()
        self.buffer = BufferStore(path, KEY, self.clock, SystemEntropy(), cap_bytes=1 << 20, gap_s=5.0)
        self.told: list[object] = []
        self.alarms_told: list[object] = []
        followers, alarm_followers = Followers(), AlarmFollowers()
        followers.publish = self.told.append
        alarm_followers.publish = self.alarms_told.append
        self.alarms = AlarmDesk(rules, self.buffer, self.clock, alarm_followers)
        self.pipeline = Pipeline(self.buffer, self.clock, followers, 0, alarms=self.alarms)
        self.reader = BufferReader(path, KEY)
        self.at_ns = 100 * S

    def send(self, blocks: int = 1, stream: str = "wrist", skip_s: float = 0.0) -> None:
        self.at_ns += round(skip_s * S)
        for _ in range(blocks):
            values = np.linspace(0, 2, 20, dtype=np.float32).reshape(10, 2)
            self.pipeline.consume(Block(stream, self.at_ns, 50.0, values))
            self.at_ns += S // 5

    async def decided(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.told) < count:
                await asyncio.sleep(0)

    def pass_time(self, seconds: float) -> None:
        self.clock.s += seconds
        self.pipeline.flush_due()

    def predictions(self):
        with closing(BufferReader(self.path, KEY)) as reader:
            return reader.predictions(0, 10_000)

    def answers(self) -> ModelAnswers:
        return ModelAnswers(self.pipeline, self.buffer, self.reader, lambda: BufferReader(self.path, KEY), self.clock)

    def full(self, monkeypatch) -> None:
        def refuse(name: str, work: object) -> None:
            raise StoreError("store-write", f"{name} was not written: disk is full")

        monkeypatch.setattr(self.buffer.database, "run_tx", refuse)


@pytest.fixture
async def device(tmp_path):
    made = Device(tmp_path / "buffer.db", AlarmRule(name="high", label="high", above=0.05))
    yield made
    await made.pipeline.close(DEADLINE_S)
    made.reader.close()
    made.buffer.close()


async def test_a_full_disk_stops_neither_decisions_nor_those_who_follow_and_loses_none(device, monkeypatch) -> None:
    device.pipeline.serve(served(WRIST))
    device.send(5)
    await device.decided(5)
    device.pass_time(2)
    with monkeypatch.context() as patch:
        device.full(patch)
        device.send(20)
        await device.decided(25)
        device.pass_time(2)
        assert device.pipeline.store_error is not None
        assert len(device.predictions()) == 5
    device.pass_time(2)
    assert [one.number for one in device.predictions()] == list(range(1, 26))
    assert [one.id for one in device.told] == list(range(1, 26))


async def test_a_disk_that_holds_a_commit_delays_no_decision_and_one_that_hangs_is_told_of(device, monkeypatch) -> None:
    committer, let_go = Committer(device.buffer, device.clock), threading.Event()
    followers = Followers()
    followers.publish = device.told.append
    device.pipeline = Pipeline(device.buffer, device.clock, followers, 0, commit_due=committer.flush_due)
    device.pipeline.serve(served(WRIST))
    write = device.buffer.group.write
    monkeypatch.setattr(device.buffer.group, "write", lambda batch: let_go.wait(DEADLINE_S) and write(batch))
    device.send(5)
    device.pass_time(2)
    for count in range(10, 30, 5):
        device.send(5)
        device.pass_time(2)
        await device.decided(count)
    assert (device.pipeline.store_error, device.predictions()) == (None, [])
    device.pass_time(PATIENCE_S)
    assert "hangs" in device.pipeline.store_error.sentence
    device.send(5)
    await device.decided(30)
    let_go.set()
    async with asyncio.timeout(DEADLINE_S):
        while len(device.predictions()) < 30:
            device.pass_time(2)
            await asyncio.sleep(0.01)
    device.send(250)
    assert device.pipeline.store_error is None
    committer.close()


async def test_on_a_full_disk_whoever_comes_next_is_another_session_under_one_id(device, monkeypatch) -> None:
    device.pipeline.serve(served(WRIST))
    device.send(3)
    await device.decided(3)
    with monkeypatch.context() as patch:
        device.full(patch)
        device.send(3, skip_s=60)  # a gap: somebody else, and nothing can be written
        device.pipeline.consume(Mark("wrist", device.at_ns, device.at_ns, "", "adt", MarkKind.SESSION_OPEN))
        device.pipeline.consume(Mark("wrist", device.at_ns, device.at_ns + S, "walk", "replay"))
        device.send(3)
        device.pipeline.consume(Mark("wrist", device.at_ns, device.at_ns, "", "adt", MarkKind.SESSION_CLOSE))
        device.send(3)
        device.send(2, stream="other")  # a stream that was never seen
        await device.decided(12)
    device.pass_time(RETRY_S)
    device.send(3)
    await device.decided(15)
    device.pass_time(2)
    sessions = {one.session: one for one in device.reader.sessions()}
    found = [one.session for one in device.predictions()]
    assert len(found) == 15
    assert set(found) <= set(sessions)
    groups = [found[at] for at in range(0, 15, 3)]
    assert [session for session in groups for _ in range(3)] == found
    assert len(set(groups)) == 4  # after the disk came back, the last session goes on
    assert groups[3] == groups[4]
    assert [device.reader.labels(one) for one in groups] == [[]] * 5  # nobody's label is another's
    assert device.reader.counters()["dropped-labels"] == 1
    assert [sessions[one].origin for one in groups[:4]] == ["gap", "gap", "adt", "after-close"]
    closed = [sessions[one].closed_ns is not None for one in groups[:4]]
    assert closed == [True, True, True, False]


async def test_a_session_that_is_opened_by_hand_comes_after_what_the_disk_refused(device, monkeypatch) -> None:
    calls = SessionCalls(device.buffer, device.reader, device.clock, 5.0)
    device.send(3)
    with monkeypatch.context() as patch:
        device.full(patch)
        device.send(3, skip_s=60)
        with pytest.raises(StoreError):
            calls.open("wrist", consent_training=None, origin="api")
    opened = calls.open("wrist", consent_training=None, origin="api")
    assert device.buffer.ahead.current("wrist") == opened.session
    assert [one.origin for one in device.reader.sessions()] == ["gap", "gap", "api"]
    device.pass_time(RETRY_S)
    assert device.buffer.ahead.current("wrist") == opened.session


async def test_an_alarm_of_a_session_that_the_disk_refused_is_told_with_it(device, monkeypatch) -> None:
    device.pipeline.serve(served(WRIST))
    with monkeypatch.context() as patch:
        device.full(patch)
        device.send(2)
        await device.decided(2)
        device.pass_time(1)
        assert device.alarms_told == []
        assert device.alarms.waiting == 1
    device.clock.s += RETRY_S
    device.alarms.tick()  # before the pipeline had a look at the disk
    (told,) = device.alarms_told
    assert told.session == device.predictions()[0].session
    assert told.session in {one.session for one in device.reader.sessions()}


async def test_records_are_stored_and_decided_beside_the_windows(device) -> None:
    device.pipeline.serve(served(WRIST))
    device.pipeline.serve(served(VITALS, "vitals"))
    for at in range(3):
        device.pipeline.consume(Record("bed", (100 + at) * S, {"spo2": 0.9, "pulse": 70.0}))
        device.send()
    device.pipeline.consume(Record("bed", 103 * S, {"spo2": float("inf")}))  # cannot be kept
    await device.decided(6)
    device.pass_time(2)
    assert (
        sorted((one.model_name, one.stream) for one in device.predictions())
        == [("har", "wrist")] * 3 + [("vitals", "bed")] * 3
    )
    (session,) = device.reader.sessions("bed")
    assert [record.values["spo2"] for record in device.reader.records("bed", session.session)] == [0.9] * 3
    facts = {stream.stream: stream for stream in device.pipeline.streams()}
    assert (facts["bed"].records, facts["bed"].dropped_blocks, facts["wrist"].records) == (4, 1, 0)
    assert device.pipeline.store_error is None


async def test_a_record_with_fields_without_a_value_is_stored_and_decided_by_what_it_has(device) -> None:
    device.pipeline.serve(served(VITALS, "vitals"))
    nothing = float("nan")
    for at, values in enumerate(({"spo2": nothing, "pulse": 70.0}, {"spo2": nothing, "pulse": nothing})):
        device.pipeline.consume(Record("bed", (100 + at) * S, values))
    device.pipeline.consume(Record("bed", 102 * S, {"spo2": 0.9, "pulse": 70.0}))
    await device.decided(2)
    device.pass_time(2)
    assert [one.end_ns // S for one in device.predictions()] == [100, 102]  # of nothing, nothing is decided
    (session,) = device.reader.sessions("bed")
    kept = [record.values for record in device.reader.records("bed", session.session)]
    assert [sum(math.isnan(value) for value in values.values()) for values in kept] == [1, 2, 0]
    assert device.pipeline.store_error is None


async def test_what_waits_of_an_erased_session_leaves_nothing(device) -> None:
    device.pipeline.serve(served(WRIST))
    device.send(4)  # the first goes to the thread
    session = device.buffer.sessions.current("wrist")
    device.buffer.forget(session)
    await device.pipeline.close(DEADLINE_S)
    device.pass_time(2)
    assert device.predictions() == []
    assert device.reader.sessions() == []
    assert device.reader.counters() == {}


async def test_one_model_on_many_streams_cuts_each_for_itself(device) -> None:
    device.pipeline.serve(served(WRIST), ["left", "right"])
    for _ in range(4):
        device.send(stream="left")
        device.send(stream="right")
        device.send(stream="wrist")  # which it does not read
    await device.decided(8)
    assert sorted(one.stream for one in device.told) == ["left"] * 4 + ["right"] * 4
    (facts,) = device.pipeline.models()
    assert (facts.streams, facts.predictions, facts.dropped_windows, facts.error) == (("left", "right"), 8, 0, "")


async def test_a_callers_window_is_shaped_as_a_streams_and_stored_nowhere(device) -> None:
    device.pipeline.serve(served(WRIST))
    device.send()
    await device.decided(1)
    values = np.linspace(0, 2, 20, dtype=np.float32)
    answer = await device.answers().predict("", values.reshape(WRIST.length, WRIST.channels))
    assert (answer.model, answer.model_digest, answer.label) == ("har", b"m" * 32, device.told[0].label)
    shares = {one.label: one.probability_e6 for one in answer.probabilities}
    assert abs(shares[answer.label] - device.told[0].confidence_e6) <= 1
    assert sum(shares.values()) == pytest.approx(1_000_000, abs=2)
    assert len(device.told) == 1


async def test_a_callers_window_of_another_form_or_model_is_refused(device) -> None:
    answers = device.answers()
    whole = np.zeros((WRIST.length, WRIST.channels), np.float32)
    with pytest.raises(ProtocolError, match="no model at all"):
        await answers.predict("", whole)
    device.pipeline.serve(served(WRIST))
    for values, why in (
        (whole[:-1], "a window of"),
        (whole.ravel(), "a window of"),
        (whole.T, "transposed"),
        (np.full_like(whole, np.nan), "not finite"),
    ):
        with pytest.raises(MalformedError, match=why):
            await answers.predict("har", values)
    with pytest.raises(ProtocolError, match="no model ecg"):
        await answers.predict("ecg", whole)
    device.pipeline.serve(served(VITALS, "vitals"))
    with pytest.raises(ProtocolError, match="several models"):
        await answers.predict("", whole)


async def test_an_explanation_shows_what_the_model_looks_at_and_is_kept(device) -> None:
    device.pipeline.serve(served(WRIST))
    device.send(3)
    await device.decided(3)
    told = await device.answers().explain(2, 5)
    effects = np.array(told.effect_e6).reshape(told.segments, told.channels)
    assert (told.method, effects.shape) == ("occlusion", (5, 2))
    assert effects[:2, 0].all()  # the first half of channel 0
    assert not effects[3:, 0].any()
    assert not effects[:, 1].any()
    kept = device.reader.explanation(2)
    assert np.abs(kept.weights * 1e6 - effects).max() <= 0.6
    device.pipeline.serve(served(WRIST, digest=b"n" * 32))
    with pytest.raises(ProtocolError) as caught:
        await device.answers().explain(1, 5)
    assert caught.value.code == "other-model"


async def test_a_prediction_on_a_record_is_explained_too(device) -> None:
    device.pipeline.serve(served(VITALS, "vitals"))
    device.pipeline.consume(Record("bed", 100 * S, {"spo2": 0.9, "pulse": 70.0}))
    await device.decided(1)
    told = await device.answers().explain(1, 16)
    assert (told.segments, told.channels) == (1, 2)
    spo2, pulse = told.effect_e6
    assert spo2 > 100_000, "as if it were missing"
    assert pulse == 0, "the model looks at the first field alone"


async def test_an_explanation_tells_when_the_model_does_not_decide_quite_as_it_did(device) -> None:
    device.pipeline.serve(served(WRIST))
    device.send(3)
    await device.decided(3)
    for sign, bias in ((1, 1e-3), (-1, 0.0)):
        other = Slope()  # as another runtime would compute
        other.predict = lambda x, sign=sign, bias=bias: sign * Slope().predict(x) + np.float32([bias, 0])
        model = Model(b"m" * 32, Head("classification", ("low", "high")), (WRIST.length, WRIST.channels), other)
        device.pipeline.serve(ServedModel("har", model, WRIST))
        if sign > 0:
            assert (await device.answers().explain(1, 5)).method == "occlusion-near"
            continue
        with pytest.raises(ProtocolError) as caught:
            await device.answers().explain(2, 5)
        assert caught.value.code == "window-not-found"


VALUES = Head("regression", ("fall", "rise"), Targets(("cm", "mm"), (5.0, 0.0), (1.0, 0.1)))
"""A slope of y is 10 mm."""


async def test_an_output_of_a_regression_is_stored_explained_and_answered_in_its_unit(device) -> None:
    model = Model(b"v" * 32, VALUES, (WRIST.length, WRIST.channels), Slope())
    device.pipeline.serve(ServedModel("values", model, WRIST))
    device.send(5)
    await device.decided(5)
    device.pass_time(2)
    (stored,) = device.predictions()[:1]
    assert [(one.name, one.unit) for one in stored.outputs] == [("fall", "cm"), ("rise", "mm")]
    fall, rise = (one.value for one in stored.outputs)
    assert rise == pytest.approx((5.0 - fall) * 10)
    told = await device.answers().explain(1, 5, "rise")
    effects = np.array(told.effect).reshape(told.segments, told.channels)
    assert (told.output, told.unit, list(told.effect_e6)) == ("rise", "mm", [])
    assert np.abs(effects).max() > 0.1
    assert (await device.answers().explain(1, 5)).output == "fall"
    assert (await device.answers().explain(1, 5, "rise")) == told
    with pytest.raises(ProtocolError) as error:
        await device.answers().explain(1, 5, "no-such")
    assert error.value.code == "no-such-output"
    asked = await device.answers().predict("values", np.ones((WRIST.length, WRIST.channels), np.float32))
    assert not asked.probabilities
    assert [(one.name, one.unit) for one in asked.outputs] == [("fall", "cm"), ("rise", "mm")]


async def test_what_cannot_be_explained_says_why(device) -> None:
    device.pipeline.serve(served(WRIST))
    device.send(3)
    await device.decided(3)
    with pytest.raises(ProtocolError, match="no prediction 9"):
        await device.answers().explain(9, 5)
    device.buffer.flush()
    device.buffer.run("evict", lambda tx: tx.execute("DELETE FROM blobs"))
    with pytest.raises(ProtocolError) as caught:
        await device.answers().explain(2, 5)
    assert caught.value.code == "signal-gone"


async def test_a_streams_quality_is_told_and_held_against_the_models_reference(device) -> None:
    reference = (ChannelReference((0.5,), (0.5, 0.5), 0.0, 1.0), ChannelReference((0.5,), (0.5, 0.5), -9.0, 9.0))
    device.pipeline.serve(served(WRIST)._replace(reference=reference))
    device.send(10)
    await device.decided(10)
    (facts,) = device.pipeline.streams()
    assert facts.quality.missing == 0
    assert facts.quality.out_of_range == pytest.approx(0.25)  # half of channel 0 lies above 1
    device.pipeline.serve(served(WRIST, digest=b"n" * 32)._replace(reference=reference))  # a round's result
    assert device.pipeline.streams()[0].quality == facts.quality


async def test_blocks_without_samples_cost_nothing_but_themselves(device) -> None:
    device.pipeline.serve(served(WRIST))
    device.pipeline.consume(Block("wrist", device.at_ns, 50.0, np.empty((0, 2), np.float32)))
    device.send(2)
    await device.decided(2)
    assert device.pipeline.streams()[0].dropped_blocks == 1


async def test_a_labelled_window_is_explained_when_its_signal_has_gone(device) -> None:
    device.pipeline.serve(served(WRIST), ["left"])
    assert [(asked.window.stream, asked.window.length) for asked in device.pipeline.questions()] == [("left", 10)]
    device.send(20, stream="left")
    await device.decided(20)
    device.buffer.add_label("left", 100 * S, 102 * S, "high", "cli")
    device.buffer.sessions.close("left", 104 * S)
    device.buffer.flush()
    before = await device.answers().explain(3, 5)
    device.buffer.run("no explanation", lambda tx: tx.execute("DELETE FROM explanations"))
    hour_ns = 3_600 * S
    rules = RetentionRules(hour_ns, 99 * hour_ns, 99 * hour_ns)
    retention = Retention(device.path, KEY, rules, SystemEntropy())
    while retention.run(device.buffer, 100 * S + 2 * hour_ns, device.pipeline.questions()):
        pass
    assert list(device.reader.parts("left", device.reader.sessions("left")[0].session)) == []
    assert await device.answers().explain(3, 5) == before
    with pytest.raises(ProtocolError, match="not in the buffer"):
        await device.answers().explain(20, 5)  # which nobody has labelled


def idle(device) -> list[str]:
    return [model.idle for model in device.pipeline.models()]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (Block("wrist", S, 50.0, np.zeros((9, 9), np.int16)), "stream wrist has 9 channels at 50 Hz"),
        (Block("wrist", S, 100.0, np.zeros((9, 2), np.int16)), "stream wrist has 2 channels at 100 Hz"),
        (Record("wrist", S, {"spo2": 97.0}), "stream wrist has records"),
    ],
)
async def test_a_model_whose_stream_does_not_fit_says_so_after_a_while_until_it_does(device, block, words) -> None:
    device.pipeline.serve(served(WRIST))
    device.pipeline.consume(block)
    device.clock.s += MISFIT_S / 2
    assert idle(device) == [""]
    device.pipeline.consume(block)
    device.clock.s += MISFIT_S / 2
    assert idle(device) == [f"takes 2 channels at 50 Hz; {words}"]
    device.send()
    device.clock.s += MISFIT_S
    assert idle(device) == [""]


async def test_a_model_of_records_does_not_take_signal_and_a_silent_source_is_no_fault_of_its_model(device) -> None:
    device.pipeline = Pipeline(device.buffer, device.clock, Followers(), 0, sources=["wrist", "bed"])
    device.pipeline.serve(served(VITALS))
    device.pipeline.serve(served(WRIST, "other"), ["ankle"])
    device.clock.s += 10 * MISFIT_S
    assert idle(device) == ["", "reads stream ankle, which no source feeds (streams here: bed, wrist)"]
    device.send(1, stream="bed")
    device.clock.s += MISFIT_S
    assert idle(device)[0] == "takes records; stream bed has 2 channels at 50 Hz"
    device.pipeline.consume(Record("bed", device.at_ns, {"spo2": 97.0}))
    assert idle(device)[0] == ""
    device.send(1, stream="bed")  # the stream has both, and records are rare
    device.clock.s += MISFIT_S
    assert idle(device)[0] == ""


@pytest.mark.parametrize(
    "change",
    [
        {"start_ns": (1 << 63) - 1_000_000_000},
        {"start_ns": 1 << 70},
        *({"rate_hz": rate} for rate in (1e12, 1e300, float("inf"), float("nan"))),
        {"unit": "u" * 70_000},
        {"values": np.zeros((10, 70_000), np.float32)},
        {"scale": float("inf")},
    ],
)
async def test_a_source_of_impossible_blocks_costs_no_other_stream(device, monkeypatch, caplog, change) -> None:
    device.pipeline.serve(served(WRIST))
    bad = replace(Block("far", 100 * S, 50.0, np.zeros((10, 2), np.float32)), **change)
    for _ in range(5):
        device.pipeline.consume(bad)
        device.send()
    await device.decided(5)
    device.pass_time(2)
    with monkeypatch.context() as patch:  # nor where the disk has refused a session of that stream
        device.full(patch)
        device.pipeline.consume(Mark("far", 100 * S, 100 * S, "", "replay", MarkKind.SESSION_OPEN))
        device.pipeline.consume(bad)
    device.pipeline.consume(Mark("far", 1 << 63, 1 << 63, "", "replay", MarkKind.SESSION_OPEN))
    device.pass_time(RETRY_S)
    assert len(device.predictions()) == 5
    assert len(device.alarms_told) == 1
    assert device.alarms.waiting == 0
    assert device.reader.rows()["blobs"] > 0
    facts = {stream.stream: stream for stream in device.pipeline.streams()}
    assert (facts["far"].dropped_blocks, facts["far"].rate_hz, facts["wrist"].dropped_blocks) == (6, 0.0, 0)
    assert {one.stream: one.opened_ns for one in device.reader.sessions()}["far"] == 100 * S
    assert caplog.text.count("block-refused") <= 1
    device.buffer.flush()
