"""One run of a training in one process, out of perhaps several: saves where it is, stops when asked, watches its time.

A sitting is told between any two batches. It saves when it is asked to stop and every so often, so that a kill costs
little; and from the first steps it knows whether the training can end in time here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bedside.agent.training.budget import WARM_STEPS, Budget, check_time
from bedside.agent.training.saved import SavedTraining
from bedside.agent.windows.training import Horizon
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import UnavailableError
from bedside.ondevice.confinement import STOPPED
from bedside.ondevice.training.position import Between, Saved

_SAVING_SHARE: Final = 0.05
"""Of the time at most, saving: a large state on a slow card is saved more rarely."""


class Sitting:
    """One run.

    Args:
        file: where the state is saved; None saves nothing, and stops without a trace.
        fit: digest of everything that the training depends on.
        horizon: of its windows.
        budget: of this device.
        stopping: whether somebody asked this process to stop.
    """

    def __init__(
        self,
        file: SavedTraining | None,
        budget: Budget,
        clock: Clock,
        entropy: Entropy,
        stopping: Callable[[], bool],
        *,
        fit: bytes = b"",
        horizon: Horizon | None = None,
    ) -> None:
        self._file = file
        self._budget = budget
        self._clock = clock
        self._entropy = entropy
        self._stopping = stopping
        self._fit = fit
        self._horizon = horizon or Horizon()
        self._began_s = self._stepped_s = clock.monotonic_s()
        self._saved_s: float | None = None
        self._save_every_s = budget.save_every_s
        self._before_s = 0.0
        self._steps = 0
        self._step_s = float("inf")

    def resume(self) -> Saved | None:
        """Where an earlier sitting stopped, if it had the same inputs; another's state is removed."""
        if self._file is None:
            return None
        facts = self._file.facts()
        if facts is None:
            return None
        if facts.fit != self._fit:
            self._file.discard()
            return None
        self._before_s = facts.spent_s
        return self._file.read()

    def between(self, between: Between) -> None:
        """Take note of a batch.

        Raises:
            UnavailableError: `child-stopped` when asked to, and the state is saved; `child-timeout`.
            RefusedError: `unaffordable-time`.
            StoreError: `file-write`.
        """
        now_s = self._clock.monotonic_s()
        spent_s = self._before_s + now_s - self._began_s
        if between.position.losses or between.position.step:
            self._judge(now_s, between.steps_left, spent_s)
        self._stepped_s = now_s
        if self._stopping():
            self._save(between, spent_s)
            raise UnavailableError(STOPPED, "the training was asked to stop, and goes on from there")
        if spent_s > self._budget.timeout_s:
            raise UnavailableError(
                "child-timeout",
                f"training did not end within {self._budget.timeout_s:g} s",
                remedy="raise training.timeout_s, or look at the load of this machine",
            )
        if self._saved_s is None:
            self._saved_s = now_s
        if now_s - self._saved_s >= self._save_every_s:
            self._save(between, spent_s)
            ended_s = self._clock.monotonic_s()
            self._save_every_s = max(self._budget.save_every_s, (ended_s - now_s) / _SAVING_SHARE)
            self._saved_s = self._stepped_s = ended_s

    def _judge(self, now_s: float, steps_left: int, spent_s: float) -> None:
        self._steps += 1
        self._step_s = min(self._step_s, now_s - self._stepped_s)
        if self._steps == WARM_STEPS:
            check_time(self._step_s, steps_left, spent_s, self._budget)

    def _save(self, between: Between, spent_s: float) -> None:
        if self._file is not None:
            saved = Saved(between.position, between.state())
            self._file.write(saved, self._entropy, fit=self._fit, horizon=self._horizon, spent_s=spent_s)
