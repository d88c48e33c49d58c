"""The shadow runs of a device: begun for a candidate, ended with a decision, begun anew after a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from bedside.agent.pipeline import Pipeline
from bedside.agent.rounds import succession
from bedside.agent.rounds.models import ServedModel
from bedside.agent.serving.changing import SlotChanges, short
from bedside.agent.serving.gate import Gate
from bedside.agent.serving.shadow import Shadow, ShadowTable
from bedside.core.errors import BedsideError
from bedside.service.logs import event

_LOGGER = logging.getLogger(__name__)


class Shadows:
    """At most one run per slot. Use from one event loop.

    Args:
        changes: of slots.
        pipeline: gives every decision to the shadow of its slot.
        gate: of the device: its rules, as they are when a run begins and ends, and its clock.
        over: begins what is to be done when a run is over, for the slot of a name.

    Attributes:
        tables: the newest run of each slot since this process started.
    """

    def __init__(
        self,
        changes: SlotChanges,
        pipeline: Pipeline,
        gate: Gate,
        over: Callable[[str, Shadow], None],
    ) -> None:
        self._changes = changes
        self._pipeline = pipeline
        self._gate = gate
        self._over = over
        self.tables: dict[str, ShadowTable] = {}

    async def begin(self, name: str) -> None:
        """Let the candidate of a slot run beside what serves; one that takes other windows somebody must decide on.

        Raises:
            BedsideError: the candidate cannot be opened; it is let go.
        """
        candidate = self._changes.slot(name).candidate
        if candidate is None or candidate.stage != "shadow":
            return
        try:
            served = await self._changes.open(candidate.model)
        except BedsideError as error:
            self._changes.let_go(name, error)
            raise
        wanted = self._gate.rules.shadow_windows
        if not wanted or not self._comparable(name, served):
            why = "it is asked something else than the model that serves" if wanted else "shadow runs are switched off"
            verdict = self._changes.verdict(candidate.model, "not-judged", f"it does not run in the shadow: {why}")
            self._changes.note(name, partial(succession.hold, verdict=verdict))
            return
        self.end(name)
        shadow = Shadow(served.model, wanted, self._gate.clock, over=lambda: self._over(name, shadow))
        self._pipeline.shadows[name], self.tables[name] = shadow, shadow.table
        event(_LOGGER, "model-shadows", slot=name, model=short(candidate.model), windows=wanted)

    def _comparable(self, name: str, candidate: ServedModel) -> bool:
        """Whether a candidate is asked the same as what serves, whatever their stream is called; classes may differ."""
        model, window = self._pipeline.served(name)
        mine, its = model.head, candidate.model.head
        if mine.task != its.task or replace(window, stream="") != replace(candidate.window, stream=""):
            return False
        return mine.task == "classification" or (mine.labels, mine.targets) == (its.labels, its.targets)

    async def conclude(self, name: str, shadow: Shadow) -> None:
        """Promote, hold or withdraw a candidate by what its run has counted.

        Raises:
            BedsideError: as `SlotChanges.go_on`.
        """
        slot, table = self._changes.slot(name), shadow.table
        if self._pipeline.shadows.get(name) is not shadow or slot.candidate is None:
            return
        share, limit = table.disagreement, self._gate.rules.shadow_disagreement
        told = f"it differs from the model that serves on {share:.1%} of {table.windows} live windows"
        decide = partial(self._changes.verdict, slot.candidate.model, windows=table.windows)
        self.end(name)
        if table.failed:
            verdict = decide("failed", f"it failed in the shadow: {table.error}")
            self._changes.note(name, partial(succession.withdraw, verdict=verdict))
        elif share <= limit:
            verdict = decide("agreed", f"{told}; it may on {limit:.1%}")
            await self._changes.go_on(name, succession.promote(slot, verdict))
        else:
            verdict = decide("disagreed", f"{told}; it may on {limit:.1%}")
            self._changes.note(name, partial(succession.hold, verdict=verdict))
        event(_LOGGER, "model-shadowed", slot=name, outcome=verdict.outcome, windows=table.windows)

    def tidy(self, name: str) -> None:
        """End the run of a slot whose candidate is another one now, or none."""
        shadow, candidate = self._pipeline.shadows.get(name), self._changes.slot(name).candidate
        if shadow is not None and (candidate is None or candidate.model.digest != shadow.model.digest):
            self.end(name)

    def end(self, name: str) -> None:
        """End the run of a slot, if there is one."""
        shadow = self._pipeline.shadows.pop(name, None)
        if shadow is not None:
            shadow.stop()

    def close(self) -> None:
        """End every run; what was begun begins anew at the next start."""
        for name in tuple(self._pipeline.shadows):
            self.end(name)
