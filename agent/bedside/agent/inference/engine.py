"""The engine: windows of many streams go in, decisions of many models come out, and nobody waits for anybody.

Every slot has a queue, a task and at most one busy thread, so that a slow model delays neither ingest nor another
model: the runtimes let go of the interpreter's lock while they compute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Final, TypeVar

from bedside.agent.inference.model import ClosedWindow, Model
from bedside.agent.inference.worker import Decided, Fails, Lost, Worker
from bedside.agent.rounds.slots import MAX_SLOTS, check_room
from bedside.core.clock import Clock

CALLERS: Final = 2
"""Calls from outside (predictions of a caller's windows, explanations) that compute at once; others wait."""

Result = TypeVar("Result")


class Engine:
    """Serves one model per slot. Use from one event loop; `decided`, `lost` and `fails` are called in it."""

    def __init__(
        self,
        clock: Clock,
        *,
        queue_windows: int,
        decided: Decided,
        lost: Lost,
        fails: Fails = lambda _name, _model: None,
    ) -> None:
        self._clock = clock
        self._queue_windows = queue_windows
        self._decided = decided
        self._lost = lost
        self._fails = fails
        self._workers: dict[str, Worker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._executor = ThreadPoolExecutor(MAX_SLOTS + CALLERS, thread_name_prefix="inference")
        self._callers = asyncio.Semaphore(CALLERS)

    @property
    def slots(self) -> Mapping[str, Worker]:
        """The workers by name, in the order in which they came."""
        return MappingProxyType(self._workers)

    def serve(self, name: str, model: Model, *, same_form: bool = True) -> None:
        """Decide a slot's windows with this model from now on; windows that wait follow, if it takes their form.

        Raises:
            RefusedError: `too-many-models`.
        """
        worker = self._workers.get(name)
        if worker is not None:
            worker.swap(model, same_form=same_form)
            return
        check_room(self._workers, name)
        self._workers[name] = Worker(
            name,
            model,
            self._clock,
            queue_windows=self._queue_windows,
            decided=self._decided,
            lost=self._lost,
            fails=self._fails,
        )

    def release(self, name: str) -> None:
        """Serve a slot no longer; what waits in it is counted as lost."""
        worker, task = self._workers.pop(name, None), self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
        if worker is not None:
            worker.abandon()

    def offer(self, name: str, window: ClosedWindow, stretch: int) -> None:
        """Put a window into a slot's queue; needs a running event loop."""
        worker = self._workers[name]
        if name not in self._tasks:
            self._tasks[name] = asyncio.get_running_loop().create_task(worker.run(self._executor), name=f"infer {name}")
        worker.offer(window, stretch)

    async def call(self, work: Callable[[], Result]) -> Result:
        """Run a caller's computation beside the windows, where few may compute at once."""
        async with self._callers:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def close(self, timeout_s: float) -> None:
        """Decide what waits, for at most so long; count what is left as lost."""
        waits = [asyncio.ensure_future(worker.drained()) for worker in self._workers.values()]
        if waits:
            _, late = await asyncio.wait(waits, timeout=timeout_s)
            for wait in late:
                wait.cancel()
        for name in tuple(self._workers):
            self.release(name)
        self._executor.shutdown(wait=False, cancel_futures=True)
