"""A candidate in the shadow decides live windows for nobody, cannot slow what serves, and comes to serve by them."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import numpy as np
import pytest

from bedside.agent.inference.answer import Answer
from bedside.agent.inference.model import Decision, Model, decide
from bedside.agent.serving.shadow import QUEUE_WINDOWS, Shadow, ShadowTable, both
from bedside.core.bundle.manifest import Targets
from bedside.ondevice.heads import Head
from bedside.service.platform import SystemClock

from .conftest import DEADLINE_S, Window

CLASSES = Head("classification", ("a", "b", "c"))


class Says:
    """A runtime that says one class; it may be made to wait, or to answer with no number."""

    name = "onnx"

    def __init__(self, label: int, *, slow: bool = False, bad: bool = False) -> None:
        self._label, self._bad = label, bad
        self.go_on = threading.Event()
        self.inside = threading.Event()
        if not slow:
            self.go_on.set()

    def predict(self, x: np.ndarray) -> np.ndarray:
        self.inside.set()
        self.go_on.wait(DEADLINE_S)
        return np.eye(3, dtype=np.float32)[[self._label] * len(x)] * (np.nan if self._bad else 9)


def model(runtime: Says, head: Head = CLASSES) -> Model:
    return Model(b"m" * 32, head, (4, 2), runtime)


def decision(label: int):
    return decide(model(Says(label)), Window(np.zeros((4, 2), np.float32)))


async def run(runtime: Says, wanted: int, decisions) -> Shadow:
    over = asyncio.Event()
    shadow = Shadow(model(runtime), wanted, SystemClock(), over.set)
    for one in decisions:
        shadow.offer(one)
        await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        await over.wait()
    shadow.stop()
    return shadow


async def test_what_both_said_is_counted_by_pair_until_there_are_enough() -> None:
    shadow = await run(Says(1), 3, [decision(label) for label in (0, 1, 1)])
    table = shadow.table
    assert table.pairs == Counter({("b", "b"): 2, ("a", "b"): 1})
    assert (table.windows, table.failed, table.dropped) == (3, 0, 0)
    assert abs(table.disagreement - 1 / 3) < 1e-9
    assert table.latency_facts().count == 3
    shadow.offer(decision(0))
    assert table.windows == 3


def test_labels_are_held_against_each_other_as_a_whole_and_values_by_their_scale() -> None:
    several = Head("multilabel", ("a", "b", "c"))
    told = [Answer(several, np.array(values, np.float32)) for values in ([0.9, 0.6, 0.1], [0.1, 0.2, 0.4])]
    assert both(told[0], told[0])[0] == both(told[0], told[0])[1] != "a"
    assert both(told[0], told[1])[1] == "none"
    ten_mmhg = Targets(unit=("mm[Hg]",), offset=(120.0,), scale=(0.1,))
    head = Head("regression", ("bp",), ten_mmhg)
    values = [Answer(head, np.array([value], np.float32)) for value in (120, 124, 130)]
    assert [both(values[0], other)[1] for other in values] == ["a value", "a value", "another value"]
    assert both(values[0], values[2])[0] != both(values[0], values[2])[1]


def test_pairs_of_answers_are_bounded() -> None:
    table = ShadowTable(10_000)
    names = tuple(f"l{number}" for number in range(10))
    several = model(Says(0), Head("multilabel", names))
    for number in range(600):
        answers = np.array([number >> bit & 1 for bit in range(10)], np.float32)
        one = Decision(several, Window(np.zeros((4, 2), np.float32)), Answer(several.head, answers))
        table.add(one, one)
    assert (table.windows, table.differing) == (600, 0)
    assert len(table.pairs) <= 257


async def test_a_shadow_that_is_too_slow_loses_its_oldest_windows_and_holds_nobody_up() -> None:
    runtime = Says(0, slow=True)
    shadow = Shadow(model(runtime), 10_000, SystemClock(), lambda: None)
    shadow.offer(decision(0))
    while not runtime.inside.is_set():
        await asyncio.sleep(0)
    for _ in range(100):
        shadow.offer(decision(0))  # returns at once, while the shadow hangs
    assert shadow.table.dropped == 100 - QUEUE_WINDOWS
    runtime.go_on.set()
    async with asyncio.timeout(DEADLINE_S):
        while shadow.table.windows < QUEUE_WINDOWS + 1:
            await asyncio.sleep(0.002)
    shadow.stop()


async def test_an_answer_that_is_no_number_ends_the_run() -> None:
    table = (await run(Says(0, bad=True), 100, [decision(0)])).table
    assert (table.failed, table.windows) == (1, 0)
    assert "not finite" in table.error


async def passed(*_: object) -> str:
    return "passed"


async def test_a_candidate_that_agrees_comes_to_serve_by_itself_and_nothing_of_its_answers_is_kept(shelf) -> None:
    shelf.configure("shadow_windows = 12")
    new = shelf.scaled(1.0001)
    async with shelf.running() as device:
        device.judge(passed)
        await device.take(new)
        assert (device.serves, device.slot.candidate.stage) == (shelf.own.name, "shadow")
        (told,) = device.pipeline.models()
        assert (told.prospect.stage, told.prospect.candidate.hex()) == ("shadow", new.name)
        await device.decide(12)
        await device.until(lambda: device.serves == new.name)
        assert device.outcomes == ["passed", "agreed"]
        assert device.pipeline.shadows == {}
        assert device.pipeline.predictions == 12  # of the one that served
        _, table = device.desk.slots()["tiny"]
        assert (table.windows, table.disagreement) == (12, 0.0)


async def test_a_candidate_that_disagrees_is_held_until_somebody_decides(shelf) -> None:
    shelf.configure("shadow_windows = 6\nshadow_disagreement = 0.1")
    same, other = shelf.always(0), shelf.always(1)
    async with shelf.running() as device:
        device.judge(passed)
        await device.take(same)
        await device.desk.promote("tiny")
        await device.take(other)
        await device.decide(6)
        await device.until(lambda: device.slot.candidate.stage == "held")
        assert (device.serves, device.outcomes[-1]) == (same.name, "disagreed")
        assert "100.0%" in device.slot.verdicts[-1].sentence
        assert "promote or reject" in device.pipeline.models()[0].prospect.concern
        await device.take(other)  # announced again: nothing new
        assert device.slot.candidate.stage == "held"
    async with shelf.running() as device:
        await device.desk.settled()
        assert (device.serves, device.slot.candidate.stage) == (same.name, "held")
        await device.desk.promote("tiny")
        assert (device.serves, device.slot.previous) == (other.name, same)


async def test_a_restart_loses_counts_and_no_candidate(shelf) -> None:
    shelf.configure("shadow_windows = 4")
    new = shelf.scaled(1.0001)
    async with shelf.running() as device:
        device.judge(passed)
        await device.take(new)
        await device.decide(2)
    async with shelf.running() as device:
        await device.desk.settled()
        assert (device.serves, device.slot.candidate.model) == (shelf.own.name, new)
        await device.decide(4)
        await device.until(lambda: device.serves == new.name)


async def test_what_comes_while_another_runs_in_the_shadow_is_judged_after_it(shelf) -> None:
    shelf.configure("shadow_windows = 4")
    first, second, third = (shelf.scaled(1 + number / 10_000) for number in (1, 2, 3))
    async with shelf.running() as device:
        device.judge(passed)
        for new in (first, second, third):
            await device.take(new)
        assert (device.slot.candidate.model, device.slot.waiting.model) == (first, third)
        await device.decide(4)
        await device.until(lambda: "tiny" in device.pipeline.shadows and device.slot.candidate.model == third)
        assert (device.serves, device.slot.waiting) == (first.name, None)
        await device.desk.reject("tiny")
        assert (device.pipeline.shadows, device.slot.candidate) == ({}, None)


async def test_a_rollback_leaves_the_candidate_in_the_shadow(shelf) -> None:
    shelf.configure("shadow_windows = 4")
    first, second = shelf.scaled(1.0001), shelf.scaled(1.0002)
    async with shelf.running() as device:
        device.judge(passed)
        await device.take(first)
        await device.desk.promote("tiny")
        await device.take(second)
        await device.desk.roll_back("tiny")
        assert device.serves == shelf.own.name
        await device.decide(4)
        await device.until(lambda: device.serves == second.name)


@pytest.mark.parametrize("fault", ["rotten", "fails"])
async def test_a_candidate_that_does_not_last_in_the_shadow_does_not_serve(shelf, fault) -> None:
    shelf.configure("shadow_windows = 4")
    new = shelf.scaled(1.0001)
    async with shelf.running() as device:
        device.judge(passed)
        await device.take(new)
        if fault == "fails":
            object.__setattr__(device.pipeline.shadows["tiny"].model, "runtime", Says(0, bad=True))
            await device.decide(1)
            await device.until(lambda: device.slot.candidate is None)
            assert device.outcomes[-1] == "failed"
        else:
            shelf.path(new).write_bytes(b"rotten")
            await device.decide(4)
            await device.until(lambda: device.slot.candidate is None)
            assert device.slot.lost
        assert (device.serves, device.pipeline.shadows) == (shelf.own.name, {})
