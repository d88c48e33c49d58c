"""The parent's side of training: one child at a time, under the gates, from where an earlier one stopped.

Invariants:
    * A child runs only while all gates are open. When one closes it writes down where it is and ends, so that its
      memory is given back; the next call goes on from there.
    * After an erasure, or where consent or a label is withdrawn, nothing is left of what was being trained: not in a
      child, and not on the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bedside.agent.training.budget import Budget
from bedside.agent.training.gates import WAITING, Gate, Gates, MachineState
from bedside.agent.training.saved import discard_training, discard_trainings, state_path
from bedside.agent.training.settings import TrainingConfig
from bedside.core.clock import Clock
from bedside.core.errors import UnavailableError
from bedside.ondevice.confinement import STOPPED, Limits, Stop, read_outcome, run_child
from bedside.service.logs import event
from bedside.service.text import bounded

_LOGGER = logging.getLogger(__name__)

CHILD: Final = "bedside.agent.training.child"
WAITS: Final = "training-waits"
"""Code of the error of a training that goes on later."""
LOOK_S: Final = 5.0
"""Seconds between two looks at the gates: a machine warms up more slowly."""
MAX_DEATHS: Final = 3
"""Children of one training that may be killed in a row without having come further."""
_MIB: Final = 1 << 20
_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """The machine as a training sees it: its state, and the memory that is free."""

    state: MachineState
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a training waits: the gate, and a sentence for this machine's users."""

    gate: Gate | None
    sentence: str


class _Told(msgspec.Struct, frozen=True):
    """What is read here of a child's progress (`bedside.ondevice.training.train.Progress`)."""

    unsaved: str = ""


class Trainer:
    """One device's. Use from one event loop.

    Args:
        config: limits and gates.
        state_dir: where unfinished trainings lie.
        clock: for the gates.
        look: takes a reading.
        look_s: seconds between two looks while a child trains.
    """

    def __init__(
        self,
        config: TrainingConfig,
        state_dir: Path,
        clock: Clock,
        look: Callable[[], Reading],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        self._config = config
        self._state_dir = state_dir
        self._clock = clock
        self._look = look
        self._look_s = look_s
        self._gates = Gates(config.gates)
        self._turn = asyncio.Lock()
        self._stop: Stop | None = None
        self._waits: dict[str, Wait] = {}
        self._unread: tuple[Gate, ...] = ()
        self._forgotten = 0
        self._deaths: dict[str, int] = {}

    def configure(self, config: TrainingConfig) -> None:
        """Go by other limits and gates from now on; a child that runs keeps the limits that it has."""
        if config.gates != self._config.gates:
            self._gates = Gates(config.gates)
        self._config = config

    @property
    def wait(self) -> Wait | None:
        """Why the first training that waits does so; None when none does."""
        return next(iter(self._waits.values()), None)

    @property
    def sentence(self) -> str:
        """How it is, for this machine's users."""
        if self._stop is not None:
            return "training"
        if self.wait is not None:
            return f"{WAITING}{self.wait.sentence}"
        return f"ready; not to be read here: {', '.join(self._unread)}" if self._unread else "ready"

    async def run(
        self,
        task: str,
        module: str,
        job: Callable[[Budget], bytes],
        *,
        closes_at_s: int | None = None,
        on_progress: Callable[[bytes], None] | None = None,
    ) -> bytes:
        """Train in a child, or go on training, until it is over or a gate closes; returns the JSON of its result.

        The caller keeps the result durably and says `done`, or calls again with the same task and inputs.

        Args:
            task: names the file of the unfinished training; one child of a task at a time.
            module: the child; it heeds stops and keeps to its budget (`bedside.agent.training.on_buffer`).
            job: the child's JSON with this budget.
            closes_at_s: when nobody wants its outcome any more, seconds since 1970; None for never.
            on_progress: called with the JSON of each progress line.

        Raises:
            UnavailableError: `training-waits`, also where the child was killed and may go on; `child-timeout`, or
                `child-died` where children were killed again and again without coming further.
            BedsideError: from the child.
        """
        async with self._turn:
            reading = self._look()
            self._check(task, reading)
            limits = Limits(self._config.memory_mib * _MIB, self._config.timeout_s, self._config.nice, background=True)
            self._waits.pop(task, None)
            forgotten, self._stop = self._forgotten, Stop()
            reached = _reached(state_path(self._state_dir, task))
            watching = asyncio.create_task(self._watch(task, self._stop))
            try:
                return await run_child(
                    module,
                    job(self._budget(reading, closes_at_s)),
                    limits,
                    self._hearing(task, on_progress),
                    self._stop,
                )
            except UnavailableError as error:
                if error.code == "child-died":
                    self._go_on(task, reached, error)
                if error.code != STOPPED:
                    raise
                wait = self._waits.get(task) or Wait(
                    None, "what it learnt from was erased or withdrawn; it begins again"
                )
                raise UnavailableError(WAITS, wait.sentence) from error
            finally:
                watching.cancel()
                self._stop = None
                if forgotten != self._forgotten:
                    discard_training(state_path(self._state_dir, task))

    def check(self, task: str) -> None:
        """Whether the gates are open for a training.

        Raises:
            UnavailableError: `training-waits`.
        """
        self._check(task, self._look())

    def done(self, task: str) -> None:
        """Nobody waits for this training any more: it is kept elsewhere, or given up."""
        self._waits.pop(task, None)
        self._deaths.pop(task, None)
        discard_training(state_path(self._state_dir, task))

    def forget(self) -> int:
        """Throw away all that is being trained, at once: a session is not to be learnt from; returns how many."""
        self._forgotten += 1
        if self._stop is not None:
            self._stop.ask(at_once=True)
        return len(discard_trainings(self._state_dir))

    def _check(self, task: str, reading: Reading) -> None:
        verdict = self._gates.judge(reading.state, self._clock.monotonic_s())
        self._unread = verdict.unread
        if verdict.closed is None:
            return
        known = self._waits.get(task)
        self._waits[task] = Wait(verdict.closed, verdict.sentence)
        if known is None or known.gate != verdict.closed:
            event(_LOGGER, "training-waits", task=task, gate=verdict.closed, why=verdict.sentence)
        raise UnavailableError(WAITS, verdict.sentence, remedy="it goes on by itself; training.gates says when")

    def _hearing(self, task: str, on_progress: Callable[[bytes], None] | None) -> Callable[[bytes], None]:
        """Log what keeps a child from saving its state, each reason once, and pass on what it tells."""
        known = ""

        def hear(line: bytes) -> None:
            nonlocal known
            unsaved = read_outcome(line, _Told).unsaved
            if unsaved not in ("", known):
                event(_LOGGER, "training-unsaved", level=logging.WARNING, task=task, why=bounded(unsaved))
            known = unsaved
            if on_progress is not None:
                on_progress(line)

        return hear

    def _go_on(self, task: str, reached: tuple[int, int], error: UnavailableError) -> None:
        """After a kill, perhaps for want of memory: what was saved is gone on with, as long as it moves.

        Raises:
            UnavailableError: `training-waits`, while there is hope.
        """
        moved = _reached(state_path(self._state_dir, task)) != reached
        deaths = self._deaths[task] = 0 if moved else self._deaths.get(task, 0) + 1
        event(_LOGGER, "training-died", level=logging.WARNING, task=task, without_progress=deaths, error=error)
        if deaths < MAX_DEATHS:
            self._waits[task] = Wait(None, "its process was killed; it goes on from what was saved")
            raise UnavailableError(WAITS, self._waits[task].sentence) from error
        del self._deaths[task]

    async def _watch(self, task: str, stop: Stop) -> None:
        """Ask the child to stop when a gate closes; where the machine cannot be read, too."""
        while True:
            await asyncio.sleep(self._look_s)
            try:
                self.check(task)
            except UnavailableError:
                break
            except Exception:
                self._waits[task] = Wait(None, "the state of this machine cannot be read")
                _LOGGER.exception("gates-unread")
                break
        stop.ask()

    def _budget(self, reading: Reading, closes_at_s: int | None) -> Budget:
        config = self._config
        now_s = self._clock.now_ns() / _NS_PER_S
        return Budget(
            memory_mb=min(config.memory_mib * _MIB, reading.free_bytes) / 1e6,
            examples_bytes=config.examples_mib * _MIB,
            timeout_s=config.timeout_s,
            closes_in_s=None if closes_at_s is None else max(0.0, closes_at_s - now_s),
            save_every_s=config.save_s,
        )


def _reached(path: Path) -> tuple[int, int]:
    """Another one whenever a state was saved: the file is replaced as a whole, and a child saves what is further."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns
