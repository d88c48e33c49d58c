"""How one slot changes: its note, what the pipeline does, and what status and health tell of it.

Invariants:
    * To go on, the files are opened, the note is durable, and then the pipeline changes: a crash at any point leaves
      the old model or the new one, and a full disk the old one.
    * To go back, the pipeline changes first: a model that nobody wants must not decide one window more because a disk
      is full. The note follows, and until it is written it holds for this process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from bedside.agent.health.facts import Prospect
from bedside.agent.pipeline import Pipeline
from bedside.agent.rounds import succession
from bedside.agent.rounds.models import ModelStore, ServedModel, no_such_model
from bedside.agent.rounds.slots import ActiveModel, Origin, Outcome, Slot, Verdict, check_room
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError, StoreError, UnavailableError
from bedside.service.logs import event

_LOGGER = logging.getLogger(__name__)

SHORT_CHARS: Final = 12
"""Of a model's digest, as commands show it."""
_NS_PER_S: Final = 1_000_000_000


class SlotChanges:
    """Does the steps of `rounds.succession`. Use from one event loop, one step of a slot at a time.

    Args:
        models: files and the note.
        pipeline: serves.
        clock: for the time of a verdict.
        streams: what the slot of a name reads; empty for what its manifest says.
    """

    def __init__(
        self, models: ModelStore, pipeline: Pipeline, clock: Clock, streams: Callable[[str], Sequence[str]]
    ) -> None:
        self._models = models
        self._pipeline = pipeline
        self._clock = clock
        self._streams = streams

    def slot(self, name: str) -> Slot:
        """What is noted of a slot.

        Raises:
            ProtocolError: `no-such-model`.
            StoreError: `active-model`.
        """
        slots = self._models.slots()
        if name not in slots:
            raise no_such_model(name, slots)
        return slots[name]

    async def open(self, active: ActiveModel) -> ServedModel:
        """Have a model ready to decide.

        Raises:
            TrustError, MalformedError, StoreError: what is on the disk does not hold any more.
            UnavailableError: `runtime-missing`.
        """
        await self._models.settle(active)
        return await asyncio.to_thread(self._models.load, active)

    async def reopen(self, name: str) -> None:
        """Serve the same model as its files are now: with what is personal of it, or without.

        Raises:
            ProtocolError: `no-such-model`.
            BedsideError: as `open`; what served goes on.
        """
        active = self.slot(name).model
        self._serve(await self.open(active), active)

    async def begin(self, active: ActiveModel, origin: Origin | None) -> str:
        """Serve a model in a slot where none does; return the slot's name.

        Raises:
            RefusedError: `too-many-models`.
            BedsideError: as `open`; `file-write`: it serves, and the disk does not take the note of it.
        """
        served = await self.open(active)
        check_room(self._pipeline.engine.slots, served.name)
        self._serve(served, active)
        self._models.activate(served.name, active, origin)
        self._show(served.name)
        return served.name

    def note(self, name: str, step: Callable[[Slot], Slot]) -> Slot:
        """Take a step that changes nothing of what serves.

        Raises:
            RefusedError: what the step refuses.
            StoreError: `file-write`.
        """
        slot = self._models.change(name, step)
        self._show(name)
        return slot

    async def go_on(self, name: str, promoted: Slot) -> Slot:
        """Serve what a step promotes; a candidate that cannot be opened is forgotten, or withdrawn.

        Raises:
            BedsideError: as `open`; `file-write`: the old one serves.
        """
        try:
            served = await self.open(promoted.model)
        except BedsideError as error:
            candidate = self.slot(name).candidate
            if candidate is not None and candidate.model.same(promoted.model):
                self.let_go(name, error)
            raise
        slot = self.note(name, lambda _: promoted)
        self._serve(served, slot.model)
        return slot

    async def go_back(self, name: str, back: Slot) -> Slot:
        """Serve the model that a rollback returns to.

        Raises:
            BedsideError: as `open`, and what served goes on; `file-write`: it serves, and the disk does not know.
        """
        served, verdict = await self.open(back.model), back.verdicts[-1]
        model = verdict.model[:SHORT_CHARS]
        event(_LOGGER, "model-rolled-back", level=logging.WARNING, slot=name, model=model, why=verdict.sentence)
        self._serve(served, back.model)
        try:
            return self._models.change(name, lambda _: back, insist=True)
        finally:
            self._show(name)

    def let_go(self, name: str, error: BedsideError) -> None:
        """The candidate cannot be opened: where its file is damaged it may come again, else it stays away."""
        candidate = self.slot(name).candidate
        if candidate is None:
            return
        if isinstance(error, StoreError | UnavailableError):
            lost = isinstance(error, StoreError)
            self.note(name, lambda slot: succession.forget_candidate(slot, lost=lost))
        else:
            verdict = self.verdict(candidate.model, "refused", error.sentence)
            self.note(name, lambda slot: succession.withdraw(slot, verdict))

    def verdict(self, model: ActiveModel, outcome: Outcome, sentence: str, *, windows: int = 0) -> Verdict:
        """A decision of now."""
        return Verdict(model.name, outcome, sentence, windows=windows, at_s=self.now_s())

    def now_s(self) -> int:
        """Unix time."""
        return self._clock.now_ns() // _NS_PER_S

    def release(self, name: str) -> None:
        """Serve a slot no longer."""
        self._pipeline.release(name)
        self._models.release(name)
        event(_LOGGER, "model-released", slot=name)

    def _serve(self, served: ServedModel, active: ActiveModel) -> None:
        self._pipeline.serve(served, self._streams(served.name))
        event(_LOGGER, "model-serves", slot=served.name, model=short(active), runtime=served.model.runtime.name)

    def _show(self, name: str) -> None:
        """Tell status and health what may come."""
        slot = self._models.known().get(name)
        if slot is None:
            return
        self._pipeline.prospects[name] = Prospect(
            slot.candidate.model.digest if slot.candidate is not None else b"",
            slot.candidate.stage if slot.candidate is not None else "",
            slot.previous.digest if slot.previous is not None else b"",
            succession.concern(slot),
        )


def short(active: ActiveModel) -> str:
    """A model's digest as commands show it."""
    return active.name[:SHORT_CHARS]
