"""The desk of what is personal: says when it is made, keeps it, and has models serve with it.

Invariants:
    * What serves changes by reopening the model that serves: no candidate, no verdict, no other digest, and nothing
      that leaves the device.
    * After an erasure, the models that had something of it are opened again without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from bedside.agent.inference.choice import Wish
from bedside.agent.personal.files import PersonalFiles
from bedside.agent.personal.job import TASK_PREFIX, Counted, Made, PersonalJob, StatisticsJob
from bedside.agent.personal.settings import PersonalConfig
from bedside.agent.personal.view import PersonalView, personal_views
from bedside.agent.rounds.models import ModelStore, no_such_model
from bedside.agent.rounds.slots import ActiveModel
from bedside.agent.serving.errands import Errands
from bedside.agent.serving.rules import ServingConfig
from bedside.agent.training.budget import Budget
from bedside.agent.training.saved import discard_trainings
from bedside.agent.training.settings import TrainingConfig
from bedside.agent.training.trainer import WAITS, Trainer
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError, RefusedError, UnavailableError
from bedside.ondevice.confinement import Limits, read_outcome, run_child
from bedside.ondevice.runtimes.installed import is_installed
from bedside.service.logs import event

_LOGGER = logging.getLogger(__name__)

LOOK_S: Final = 60.0
"""Seconds between two looks at what is due."""
AGAIN_S: Final = 600.0
"""Seconds until what could not be done is tried again; never sooner than `every_hours`, where that is less."""

_LIMITS: Final = Limits(address_space_bytes=2 << 30, timeout_s=300, nice=19, background=True)
"""Of the child that counts statistics."""
_CHILD: Final = "bedside.agent.personal.child"
_STATISTICS_CHILD: Final = "bedside.agent.personal.statistics_child"
_STATISTICS_PREFIX: Final = "statistics-"
_S_PER_HOUR: Final = 3_600.0


@dataclass(frozen=True)
class Setting:
    """What the desk knows of its device.

    Attributes:
        config: `[personal]` of agent.toml.
        state_dir: of the agent.
        identity_dir: of the device.
        wish: `[inference] runtime`.
        min_judged: `[serving] gate_min_windows`.
        trains: `[training] enabled`.
    """

    config: PersonalConfig
    state_dir: Path
    identity_dir: Path
    wish: Wish
    min_judged: int
    trains: bool


class PersonalDesk:
    """Of one device. Use from one event loop.

    Args:
        setting: of the device.
        models: what serves, and the files.
        files: what is personal.
        trainer: the device's.
        clock: for what is due.
        streams: what the slot of a name reads; empty for what its manifest says.
        report: called with what is wrong with training; None when nothing is.

    Attributes:
        reopen: awaited to have the model of a slot serve as its files are now.
    """

    def __init__(
        self,
        setting: Setting,
        models: ModelStore,
        files: PersonalFiles,
        trainer: Trainer,
        clock: Clock,
        streams: Callable[[str], Sequence[str]],
        report: Callable[[BedsideError | None], None],
    ) -> None:
        self._setting = setting
        self._models = models
        self._files = files
        self._trainer = trainer
        self._clock = clock
        self._streams = streams
        self._report = report
        self._turn = asyncio.Lock()
        self._errands = Errands()
        self._own_names: dict[str, frozenset[str]] = {}
        self._tried_s: dict[tuple[str, str], float] = {}
        self._unfinished: set[str] = set()
        self._sentences: dict[str, str] = {}
        self.reopen: Callable[[str], Awaitable[None]] = _nobody
        files.on_erased = self._erased

    def configure(self, personal: PersonalConfig, serving: ServingConfig, training: TrainingConfig) -> None:
        """Go by other rules from now on."""
        self._setting = replace(
            self._setting, config=personal, min_judged=serving.gate_min_windows, trains=training.enabled
        )

    async def run(self) -> None:
        """Make what is due, for ever."""
        while True:
            try:
                await self.look()
            except Exception:  # nothing here may end the agent
                _LOGGER.exception("personal-failed")
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Make what is due now; what fails is logged, and tried again."""
        self._tidy()
        for name, slot in self._models.known().items():
            try:
                if await self.count(slot.model, name):
                    await self.reopen(name)
                if self._is_due(name, slot.model):
                    await self.make(name)
            except BedsideError as error:
                self._failed(name, error)
            except Exception:
                _LOGGER.exception("personal-failed")

    def views(self) -> dict[str, PersonalView]:
        """What is personal of every slot. Raises StoreError: `active-model`."""
        found = personal_views(self._models.slots(), self._files, self._setting.config, self._sentences)
        return {view.name: view for view in found}

    async def make(self, name: str) -> None:
        """Tune and fit what agent.toml wants of a model, judge it, and serve with what is not worse.

        Raises:
            ProtocolError: `no-such-model`.
            RefusedError: `personal-off`, `training-disabled`, `no-such-graph`, `unaffordable-memory`,
                `unaffordable-time`, or `personal-stale` when the model or its data changed meanwhile.
            UnavailableError: `training-waits`; `child-died`, `child-timeout`.
            BedsideError: of the model's files.
        """
        active, rules = self._active(name), self._setting.config.of(name)
        if not rules.wanted:
            raise RefusedError(
                "personal-off",
                f"agent.toml wants neither fine-tuning nor a temperature for {name}",
                remedy="set fine_tune = true or temperature = true in [personal]",
            )
        if not self._setting.trains or not is_installed("onnx"):
            raise RefusedError(
                "training-disabled", "this device only infers", remedy="set enabled = true in [training] of agent.toml"
            )
        task = f"{TASK_PREFIX}{active.bundle}"
        job = PersonalJob(
            str(self._setting.state_dir),
            str(self._setting.identity_dir),
            active,
            task,
            rules,
            tuple(self._streams(name)),
            self._setting.wish,
            self._setting.min_judged,
        )

        def with_budget(budget: Budget) -> bytes:
            return msgspec.json.encode(msgspec.structs.replace(job, budget=budget))

        async with self._turn:
            self._tried_s[name, active.name] = self._clock.monotonic_s()
            erasures = self._files.erasures
            try:
                made = read_outcome(await self._trainer.run(task, _CHILD, with_budget), Made).report
            except BedsideError as error:
                if error.code == WAITS:
                    self._unfinished.add(task)
                else:
                    self._done(task)
                raise
            self._done(task)
            if not self._active(name).same(active) or not self._files.adopt(task, "tuned", active.bundle, erasures):
                self._files.discard_pending(task)
                self._tried_s.pop((name, active.name), None)
                raise RefusedError("personal-stale", "the model or its sessions changed meanwhile; it is made again")
        self._sentences.pop(name, None)
        self._report(None)
        event(_LOGGER, "personal-made", slot=name, used=made.used, windows=made.windows)
        await self.reopen(name)

    async def reset(self, name: str) -> None:
        """Throw away everything personal of a model: local tensors, too. It is made again when it is due.

        Raises:
            ProtocolError: `no-such-model`.
            BedsideError: the model cannot be opened.
        """
        active = self._active(name)
        self._done(f"{TASK_PREFIX}{active.bundle}")
        self._files.reset(active.bundle)
        await self._errands.done()

    async def count(self, active: ActiveModel, name: str) -> bool:
        """Make local statistics that a model wants and this device has none of; True when there are some now.

        Before a model serves, and later where there was too little signal then; what is wrong is logged.
        """
        key = (_STATISTICS_PREFIX, active.bundle)
        if not await self._wants_statistics(active) or not self._may_try(key, AGAIN_S):
            return False
        self._tried_s[key] = self._clock.monotonic_s()
        task = f"{_STATISTICS_PREFIX}{active.bundle}"
        job = StatisticsJob(
            str(self._setting.state_dir), str(self._setting.identity_dir), active, task, tuple(self._streams(name))
        )
        erasures = self._files.erasures
        try:
            counted = read_outcome(await run_child(_STATISTICS_CHILD, msgspec.json.encode(job), _LIMITS), Counted)
        except BedsideError as error:
            event(_LOGGER, "statistics-not-made", slot=name, error=error)
            return False
        event(_LOGGER, "statistics-made", slot=name, windows=counted.windows)
        return self._files.adopt(task, "local", active.bundle, erasures)

    async def settled(self) -> None:
        """Wait until what was erased is out of what serves."""
        await self._errands.done()

    def close(self) -> None:
        """Begin nothing any more."""
        self._errands.cancel()

    def _done(self, task: str) -> None:
        self._unfinished.discard(task)
        self._trainer.done(task)

    def _tidy(self) -> None:
        """Give up what was begun for a model that does not serve any more, or is not to be tuned any more."""
        slots = self._models.known().items()
        keep = frozenset(f"{TASK_PREFIX}{slot.model.bundle}" for name, slot in slots if self._wants(name))
        gone = discard_trainings(self._setting.state_dir, TASK_PREFIX, keep)
        for task in {*gone, *self._unfinished} - keep:
            self._done(task)

    def _wants(self, name: str) -> bool:
        return self._setting.config.of(name).wanted and self._setting.trains and is_installed("onnx")

    def _active(self, name: str) -> ActiveModel:
        slots = self._models.known()
        if name not in slots:
            raise no_such_model(name, slots)
        return slots[name].model

    def _is_due(self, name: str, active: ActiveModel) -> bool:
        if not self._wants(name):
            return False
        every_s = self._setting.config.of(name).every_hours * _S_PER_HOUR
        tuned = self._files.tuned(active.bundle, active.name)
        report = tuned.facts.report if tuned is not None else None
        if report is not None and self._clock.now_ns() / 1e9 - report.at_s < every_s:
            return False
        return self._may_try((name, active.name), min(every_s, AGAIN_S))

    def _may_try(self, key: tuple[str, str], again_s: float) -> bool:
        tried_s = self._tried_s.get(key)
        return tried_s is None or self._clock.monotonic_s() - tried_s >= again_s

    async def _wants_statistics(self, active: ActiveModel) -> bool:
        names = self._own_names.get(active.bundle)
        if names is None:
            names = self._own_names[active.bundle] = await asyncio.to_thread(self._names_of, active)
        if not names:
            return False
        local = self._files.read("local", active.bundle)
        return local is None or not names <= local.tensors.keys()

    def _names_of(self, active: ActiveModel) -> frozenset[str]:
        from bedside.ondevice.training.statistics import own_names

        return own_names(self._models.read_bundle(active).manifest)

    def _failed(self, name: str, error: BedsideError) -> None:
        """Waiting and refusals are told where somebody asks; anything else is the trainer's fault."""
        if self._sentences.get(name) != error.sentence:
            event(_LOGGER, "personal-not-made", slot=name, error=error)
        self._sentences[name] = error.sentence
        if isinstance(error, UnavailableError) and error.code == WAITS:  # the gates are looked at again
            self._tried_s = {key: at_s for key, at_s in self._tried_s.items() if key[0] != name}
        elif not isinstance(error, RefusedError):
            self._report(error)

    def _erased(self, bundles: frozenset[str]) -> None:
        for name, slot in self._models.known().items():
            if slot.model.bundle in bundles:
                self._tried_s.pop((_STATISTICS_PREFIX, slot.model.bundle), None)
                self._errands.run(name, self._without(name))

    async def _without(self, name: str) -> None:
        await self.reopen(name)


async def _nobody(_name: str) -> None:
    """Nothing serves yet."""
