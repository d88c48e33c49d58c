"""One slot at work: a bounded queue of closed windows, and a task that has them decided in a thread.

A model that has shown to be quick decides at once, in the loop, as long as nothing waits: on two busy cores a trip to a
thread costs a window of a small net 0.3 ms at the median and 5 ms at the 99th percentile (the interpreter's lock is
passed on every 5 ms), and deciding at once 0.2 and 0.7 ms.

Invariants:
    * Ingest never waits: a full queue loses its oldest window, which is counted.
    * A window is taken from the queue once and decided whole, by the model that is there when it is taken; where the
      new model wants windows of another form, those that wait are still for the old one.
    * Decisions of one slot come out in the order in which its windows went in.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, NamedTuple

from bedside.agent.inference.failing import Failing
from bedside.agent.inference.latency import STAGES, Histogram, LatencyFacts
from bedside.agent.inference.model import ClosedWindow, Decision, Model, decide
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError
from bedside.service.link.errors import unexpected

_LOGGER = logging.getLogger(__name__)

QUICK_S: Final = 0.001
"""A model whose slowest recent window took less than this may decide in the loop."""
_FORGETS: Final = 0.9
"""Share of the slowest recent time that is left after each quicker window."""
_HOP_S: Final = 0.002
"""What one trip to the thread may take: many windows of a fast model, one of a slow one."""
_MOST_PER_HOP: Final = 16

Decided = Callable[[str, Decision, int], None]
"""Takes the slot's name, a decision, and the stretch that its window belongs to."""
Lost = Callable[[ClosedWindow, str], None]
"""Takes a window that nobody will decide, and the counter that it belongs to."""
Fails = Callable[[str, Model], None]
"""Takes the slot's name and a model that fails at work; it is called for every window that finds it failing."""


class _Waiting(NamedTuple):
    window: ClosedWindow
    stretch: int
    closed_s: float
    model: Model | None = None


_Answer = tuple[Decision | BedsideError, float]
"""What came of a window, and how long that took in seconds."""


class Worker:
    """One slot. Use from one event loop; `decided`, `lost` and `fails` are called in it.

    Attributes:
        name: of the slot.
        model: decides what is taken next.
        error: why the last window was not decided; None when it was.
        predictions: windows decided.
        dropped: windows that left the queue undecided.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        clock: Clock,
        *,
        queue_windows: int,
        decided: Decided,
        lost: Lost,
        fails: Fails = lambda _name, _model: None,
    ) -> None:
        self.name = name
        self.model = model
        self.error: BedsideError | None = None
        self.predictions = 0
        self.dropped = 0
        self._clock = clock
        self._queue_windows = queue_windows
        self._decided = decided
        self._lost = lost
        self._fails = fails
        self._failing = Failing()
        self._waiting: deque[_Waiting] = deque()
        self._in_thread: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._infer_s = 0.0
        self._latencies = {stage: Histogram() for stage in STAGES}

    @property
    def waiting(self) -> int:
        """Windows in the queue."""
        return len(self._waiting)

    def swap(self, model: Model, *, same_form: bool) -> None:
        """Decide with `model` from the next window that is taken on, or, in another form, that is offered."""
        if not same_form:
            self._waiting = deque(waiting._replace(model=waiting.model or self.model) for waiting in self._waiting)
        self.model, self.error = model, None
        self._failing = Failing()
        self._infer_s = 0.0  # nobody knows yet how quick it is

    def offer(self, window: ClosedWindow, stretch: int) -> None:
        """Take a window; `stretch` changes where the stream was interrupted."""
        now_s = self._clock.monotonic_s()
        self._latencies["cut"].add(now_s - window.closed_monotonic_s)
        waiting = _Waiting(window, stretch, now_s)
        if self._may_decide_at_once():
            self._tell_all([waiting], self._decide(self.model, [waiting]), self.model, now_s, self.dropped)
            return
        self._waiting.append(waiting)
        while len(self._waiting) > self._queue_windows:
            self._drop(self._waiting.popleft())
        self._idle.clear()
        self._arrived.set()

    def latencies(self) -> list[LatencyFacts]:
        """Every stage since the process started."""
        return [histogram.facts(stage) for stage, histogram in self._latencies.items()]

    async def run(self, executor: Executor) -> None:
        """Decide for ever; whatever a model raises costs the window that it was raised for."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            self._in_thread = [self._waiting.popleft() for _ in range(min(self._per_hop(), len(self._waiting)))]
            model, dropped = self.model, self.dropped
            taken_s = self._clock.monotonic_s()
            answers = await loop.run_in_executor(executor, self._decide, model, self._in_thread)
            done, self._in_thread = self._in_thread, []
            self._tell_all(done, answers, model, taken_s, dropped)
            if not self._waiting:
                self._arrived.clear()
                self._idle.set()

    async def drained(self) -> None:
        """Wait until everything that waited is decided."""
        await self._idle.wait()

    def abandon(self) -> None:
        """Count what is not decided yet as lost, after the task has been cancelled."""
        for waiting in (*self._in_thread, *self._waiting):
            self._drop(waiting)
        self._in_thread = []
        self._waiting.clear()

    def _per_hop(self) -> int:
        return max(1, min(_MOST_PER_HOP, int(_HOP_S / max(self._infer_s, 1e-9))))

    def _decide(self, model: Model, batch: list[_Waiting]) -> list[_Answer]:
        """Anywhere: window by window, so that an answer does not depend on what else waited."""
        answers: list[_Answer] = []
        for waiting in batch:
            began_s = self._clock.monotonic_s()
            answer: Decision | BedsideError
            try:
                answer = decide(waiting.model or model, waiting.window)
            except BedsideError as error:
                answer = error
            except Exception as error:
                _LOGGER.exception("model-failed")
                answer = unexpected(error)
            infer_s = self._clock.monotonic_s() - began_s
            if model is self.model and waiting.model is None:
                self._infer_s = max(infer_s, _FORGETS * self._infer_s)
            answers.append((answer, infer_s))
        return answers

    def _may_decide_at_once(self) -> bool:
        idle = not self._waiting and not self._in_thread
        return idle and 0 < self._infer_s < QUICK_S and not self.model.busy

    def _tell_all(
        self, done: list[_Waiting], answers: list[_Answer], model: Model, taken_s: float, dropped: int
    ) -> None:
        for waiting, (answer, infer_s) in zip(done, answers, strict=True):
            self._latencies["wait"].add(taken_s - waiting.closed_s)
            self._latencies["infer"].add(infer_s)
            try:
                self._tell(waiting, answer, waiting.model or model, waiting.stretch + dropped)
            except Exception as error:
                _LOGGER.exception("decision-failed")
                self.error = unexpected(error)

    def _tell(self, waiting: _Waiting, answer: Decision | BedsideError, model: Model, stretch: int) -> None:
        error = answer if isinstance(answer, BedsideError) else None
        fails = model is self.model and self._failing.add(error)
        if isinstance(answer, BedsideError):
            self.error = answer
            self._lost(waiting.window, "undecided-windows")
            if fails:
                self._fails(self.name, model)
            return
        self.error = None
        self.predictions += 1
        self._latencies["decide"].add(self._clock.monotonic_s() - waiting.window.closed_monotonic_s)
        self._decided(self.name, answer, stretch)

    def _drop(self, waiting: _Waiting) -> None:
        self.dropped += 1
        self._lost(waiting.window, "dropped-windows")
