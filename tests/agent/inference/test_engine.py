"""The engine under load: nobody waits for anybody, and every window is decided once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from bedside.agent.inference.engine import Engine
from bedside.agent.inference.model import Decision, Model
from bedside.agent.rounds.slots import MAX_SLOTS
from bedside.core.errors import RefusedError
from bedside.ondevice.heads import Head
from bedside.service.platform import SystemClock

DEADLINE_S = 20.0
LABELS = ("a", "b", "c")


@dataclass(frozen=True, eq=False)
class Window:
    values: np.ndarray
    start_ns: int = 0
    stream: str = "wrist"
    session: str = "s"
    closed_monotonic_s: float = 0.0

    @property
    def end_ns(self) -> int:
        return self.start_ns + 1


def window(number: int = 0, shape: tuple[int, int] = (4, 2)) -> Window:
    return Window(np.full(shape, number % 7, np.float32), number)


class Answers:
    """A runtime that always says the same class; it may be made to wait, and tells how many were in it at once."""

    def __init__(self, label: int = 0) -> None:
        self.label = label
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.inside = self.most_inside = 0

    def predict(self, x: np.ndarray) -> np.ndarray:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.entered.set()
        self.gate.wait(DEADLINE_S)
        self.inside -= 1
        return np.eye(3, dtype=np.float32)[[self.label] * len(x)] * 9


def model(label: int = 0, runtime: object = None, shape: tuple[int, int] = (4, 2)) -> Model:
    return Model(bytes([label]) * 32, Head("classification", LABELS), shape, runtime or Answers(label))


class Desk:
    """What comes out of an engine."""

    def __init__(self, queue_windows: int = 10_000) -> None:
        self.decided: list[tuple[str, Decision, int]] = []
        self.lost: Counter[str] = Counter()
        self.lost_starts: list[int] = []
        self.engine = Engine(
            SystemClock(),
            queue_windows=queue_windows,
            decided=lambda *told: self.decided.append(told),
            lost=self.lose,
        )

    def lose(self, lost: Window, counter: str) -> None:
        self.lost[counter] += 1
        self.lost_starts.append(lost.start_ns)

    async def until(self, holds) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await asyncio.sleep(0)

    def starts(self, name: str = "har") -> list[int]:
        return [decision.window.start_ns for slot, decision, _ in self.decided if slot == name]


@pytest.fixture
async def desk():
    made = Desk()
    yield made
    await made.engine.close(DEADLINE_S)


async def test_a_slow_model_delays_neither_the_loop_nor_another_model(desk) -> None:
    slow = Answers()
    slow.gate.clear()
    desk.engine.serve("slow", model(runtime=slow))
    desk.engine.serve("quick", model(1))
    desk.engine.offer("slow", window(), 0)
    await desk.until(slow.entered.is_set)
    for number in range(50):
        desk.engine.offer("quick", window(number), 0)
    await desk.until(lambda: len(desk.starts("quick")) == 50)
    assert desk.starts("slow") == []
    slow.gate.set()
    await desk.until(lambda: desk.starts("slow") == [0])


async def test_a_quick_model_decides_at_once_until_a_swap_makes_its_speed_unknown(desk) -> None:
    desk.engine.serve("har", model())
    async with asyncio.timeout(DEADLINE_S):
        number = at_once = 0
        while not at_once:  # the first goes to a thread, and so does what follows a slow one
            desk.engine.offer("har", window(number), 0)
            number += 1
            at_once = len(desk.decided) == number
            await desk.until(lambda so_far=number: len(desk.decided) == so_far)
    stuck = Answers(1)
    stuck.gate.clear()
    desk.engine.serve("har", model(1, stuck))
    desk.engine.offer("har", window(number), 0)  # would never come back if it were decided here
    assert len(desk.decided) == number
    stuck.gate.set()
    await desk.until(lambda: len(desk.decided) == number + 1)
    assert desk.starts() == list(range(number + 1))


async def test_a_full_queue_drops_its_oldest_window_and_counts_it() -> None:
    desk, slow = Desk(queue_windows=5), Answers()
    slow.gate.clear()
    desk.engine.serve("har", model(runtime=slow))
    desk.engine.offer("har", window(0), 0)
    await desk.until(slow.entered.is_set)
    for number in range(1, 12):
        desk.engine.offer("har", window(number), 0)
    worker = desk.engine.slots["har"]
    assert (worker.waiting, worker.dropped) == (5, 6)
    assert (desk.lost, desk.lost_starts) == ({"dropped-windows": 6}, [1, 2, 3, 4, 5, 6])
    slow.gate.set()
    await desk.until(lambda: desk.starts() == [0, 7, 8, 9, 10, 11])
    stretches = [stretch for _, _, stretch in desk.decided]
    assert stretches[0] != stretches[1]  # what was dropped between them is an interruption
    assert len(set(stretches[1:])) == 1
    await desk.engine.close(DEADLINE_S)


async def test_a_storm_of_swaps_loses_no_window_and_mixes_no_models(desk) -> None:
    runtimes = [Answers(0), Answers(1), Answers(2)]
    models = [model(label, runtime) for label, runtime in enumerate(runtimes)]
    desk.engine.serve("har", models[0])
    for number in range(5_000):
        desk.engine.offer("har", window(number), 0)
        if number % 3 == 0:
            desk.engine.serve("har", models[number // 3 % 3])
        await desk.until(lambda so_far=number: len(desk.decided) >= so_far - 100)
    await desk.until(lambda: len(desk.decided) == 5_000)
    assert desk.starts() == list(range(5_000))
    assert all(decision.answer.label == LABELS[decision.model.digest[0]] for _, decision, _ in desk.decided)
    assert {decision.answer.label for _, decision, _ in desk.decided} == set(LABELS)
    assert [runtime.most_inside for runtime in runtimes] == [1, 1, 1]
    assert not desk.lost


async def test_windows_that_wait_in_another_form_are_for_the_model_that_they_were_cut_for(desk) -> None:
    slow = Answers(0)
    slow.gate.clear()
    desk.engine.serve("har", model(0, slow))
    desk.engine.offer("har", window(0), 0)
    await desk.until(slow.entered.is_set)
    for number in (1, 2):
        desk.engine.offer("har", window(number), 0)
    desk.engine.serve("har", model(1, shape=(8, 2)), same_form=False)
    desk.engine.offer("har", window(3, (8, 2)), 0)
    slow.gate.set()
    await desk.until(lambda: desk.starts() == [0, 1, 2, 3])
    assert [decision.answer.label for _, decision, _ in desk.decided] == ["a", "a", "a", "b"]


async def test_a_runtime_is_never_entered_twice_at_once(desk) -> None:
    runtime = Answers()
    served = model(0, runtime)
    desk.engine.serve("har", served)
    for number in range(200):
        desk.engine.offer("har", window(number), 0)
    x = window().values[np.newaxis]
    await asyncio.gather(*(desk.engine.call(lambda: served.answers(x)) for _ in range(200)))
    await desk.until(lambda: len(desk.decided) == 200)
    assert runtime.most_inside == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
async def test_a_window_that_cannot_be_decided_costs_that_window(desk, bad) -> None:
    desk.engine.serve("har", model())
    broken = window(1)
    broken.values[0, 0] = bad
    for offered in (window(0), broken, window(2, (9, 9)), window(3)):
        desk.engine.offer("har", offered, 0)
    await desk.until(lambda: desk.starts() == [0, 3])
    assert desk.lost == {"undecided-windows": 2}
    assert desk.engine.slots["har"].error is None  # the last one was decided


async def test_a_runtime_that_raises_leaves_the_other_slots_at_work_and_says_so(desk) -> None:
    class Broken:
        def predict(self, x: np.ndarray) -> np.ndarray:
            raise ZeroDivisionError

    desk.engine.serve("broken", model(runtime=Broken()))
    desk.engine.serve("har", model())
    for number in range(5):
        desk.engine.offer("broken", window(number), 0)
        desk.engine.offer("har", window(number), 0)
    await desk.until(lambda: len(desk.starts()) == 5 and desk.lost["undecided-windows"] == 5)
    assert "ZeroDivisionError" in desk.engine.slots["broken"].error.sentence
    desk.engine.serve("broken", model())  # a new model begins without the old one's fault
    assert desk.engine.slots["broken"].error is None


async def test_whoever_fails_to_take_a_decision_does_not_end_the_slot(desk) -> None:
    decided = desk.engine._decided

    def fail_once(*told: object) -> None:
        if told[1].window.start_ns == 0:
            raise ZeroDivisionError
        decided(*told)

    desk.engine._decided = fail_once
    desk.engine.serve("har", model())
    for number in range(3):
        desk.engine.offer("har", window(number), 0)
    await desk.until(lambda: desk.starts() == [1, 2])


async def test_at_the_end_what_waits_is_decided_or_counted() -> None:
    desk, stuck = Desk(), Answers()
    stuck.gate.clear()
    desk.engine.serve("stuck", model(runtime=stuck))
    desk.engine.serve("har", model())
    for number in range(100):
        desk.engine.offer("har", window(number), 0)
        desk.engine.offer("stuck", window(number), 0)
    await desk.until(stuck.entered.is_set)
    await desk.engine.close(0.2)
    stuck.gate.set()
    assert desk.starts() == list(range(100))
    assert desk.lost == {"dropped-windows": 100}


async def test_there_is_room_for_so_many_models_and_for_a_known_one(desk) -> None:
    for number in range(MAX_SLOTS):
        desk.engine.serve(f"m{number}", model())
    with pytest.raises(RefusedError, match="no room for more"):
        desk.engine.serve("more", model())
    desk.engine.serve("m3", model(1))
    desk.engine.release("m5")
    desk.engine.serve("more", model())
    assert len(desk.engine.slots) == MAX_SLOTS


async def test_every_stage_is_timed(desk) -> None:
    desk.engine.serve("har", model())
    for number in range(40):
        desk.engine.offer("har", window(number), 0)
    await desk.until(lambda: len(desk.decided) == 40)
    found = desk.engine.slots["har"].latencies()
    assert [(stage.stage, stage.count) for stage in found] == [("cut", 40), ("wait", 40), ("infer", 40), ("decide", 40)]
    assert all(0 < stage.p50_us <= stage.p99_us <= stage.max_us for stage in found)
