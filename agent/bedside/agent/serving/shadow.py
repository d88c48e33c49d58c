"""A candidate in the shadow: it decides the windows that the serving model has decided, and only counts come of it.

Invariants:
    * Nothing that it says reaches the buffer, alarms, sinks or followers.
    * It cannot hold up the model that serves: it is given a window after that one's decision, works in a thread of its
      own at the lowest priority, and a full queue loses its oldest window, which is counted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bedside.agent.inference.answer import Answer
from bedside.agent.inference.latency import Histogram, LatencyFacts
from bedside.agent.inference.model import BAD_WINDOW, ClosedWindow, Decision, Model, decide
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError
from bedside.service.link.errors import unexpected

_LOGGER = logging.getLogger(__name__)

QUEUE_WINDOWS: Final = 16
"""Windows that may wait for the shadow; what it cannot keep up with it need not see."""
_LOWEST_PRIORITY: Final = 19


_MAX_PAIRS: Final = 256
"""Pairs of answers that are told apart; of several labels there could be as many as windows."""
_APART: Final = 0.5
"""Standard deviations of a measured value by which two models' answers may differ and still be called the same."""


@dataclass(slots=True)
class ShadowTable:
    """What a shadow run has counted.

    Attributes:
        wanted: windows after which it is over.
        windows: that both have decided.
        differing: of these, those on which they do not say the same.
        pairs: windows by what the serving model and what the candidate said.
        failed: windows for which the candidate gave no answer, or none that is a number.
        dropped: windows that it was too slow for.
        latency: of the candidate.
        error: why it failed last.
    """

    wanted: int
    windows: int = 0
    differing: int = 0
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: int = 0
    dropped: int = 0
    latency: Histogram = field(default_factory=Histogram)
    error: str = ""

    @property
    def disagreement(self) -> float:
        """Share of windows on which they differ; 0 before the first."""
        return self.differing / max(1, self.windows)

    def add(self, old: Decision, new: Decision) -> None:
        """Count a window."""
        pair = both(old.answer, new.answer)
        self.windows += 1
        self.differing += pair[0] != pair[1]
        if pair not in self.pairs and len(self.pairs) >= _MAX_PAIRS:
            pair = ("others", "others" if pair[0] == pair[1] else "others, differing")
        self.pairs[pair] += 1

    @property
    def over(self) -> bool:
        """Whether enough is known."""
        return self.failed > 0 or self.windows >= self.wanted

    def latency_facts(self) -> LatencyFacts:
        """How long one window takes the candidate."""
        return self.latency.facts("infer")


class Shadow:
    """One candidate at work. Use from one event loop.

    Args:
        model: the candidate's.
        wanted: windows to decide.
        clock: for latencies.
        over: called once in the loop: it has decided `wanted` windows, or failed.

    Attributes:
        model: the candidate's.
        table: the counts.
    """

    def __init__(self, model: Model, wanted: int, clock: Clock, over: Callable[[], None]) -> None:
        self.model = model
        self.table = ShadowTable(wanted)
        self._clock = clock
        self._over = over
        self._waiting: deque[Decision] = deque()
        self._arrived = asyncio.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="shadow", initializer=_give_way)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="shadow")

    def offer(self, decision: Decision) -> None:
        """Take what the serving model said of a window."""
        if self._task.done():
            return
        self._waiting.append(decision)
        while len(self._waiting) > QUEUE_WINDOWS:
            self._waiting.popleft()
            self.table.dropped += 1
        self._arrived.set()

    def stop(self) -> None:
        """Decide no more."""
        self._task.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop, table = asyncio.get_running_loop(), self.table
        while not table.over:
            await self._arrived.wait()
            while self._waiting and not table.over:
                seen = self._waiting.popleft()
                self._count(seen, *await loop.run_in_executor(self._executor, self._decide, seen.window))
            self._arrived.clear()
        self._waiting.clear()
        self._over()

    def _decide(self, window: ClosedWindow) -> tuple[Decision | BedsideError, float]:
        began_s = self._clock.monotonic_s()
        answer: Decision | BedsideError
        try:
            answer = decide(self.model, window)
        except BedsideError as error:
            answer = error
        except Exception as error:
            _LOGGER.exception("shadow-failed")
            answer = unexpected(error)
        return answer, self._clock.monotonic_s() - began_s

    def _count(self, seen: Decision, answer: Decision | BedsideError, took_s: float) -> None:
        if isinstance(answer, Decision):
            self.table.add(seen, answer)
            self.table.latency.add(took_s)
        elif answer.code != BAD_WINDOW:
            self.table.failed += 1
            self.table.error = answer.sentence


def both(old: Answer, new: Answer) -> tuple[str, str]:
    """What two models say of one window, in words that are equal where they say the same."""
    targets = old.head.targets
    if targets is None:
        return old.said or "none", new.said or "none"
    apart = float((np.abs(old.values - new.values) * np.abs(targets.scale)).max()) > _APART
    return "a value", "another value" if apart else "a value"


def _give_way() -> None:
    """In the shadow's thread: Linux gives every thread a priority of its own."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
