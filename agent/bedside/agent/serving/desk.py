"""The desk of models: what comes is a candidate, what is judged well serves, and what serves badly goes back.

Invariants:
    * Steps of one device follow each other; a judgement, which may take minutes, holds up no step, and counts for
      nothing when what it compared is not what is there at its end.
    * No window is lost by a change: see `inference.worker`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from bedside.agent.inference.model import Model
from bedside.agent.pipeline import Pipeline
from bedside.agent.rounds import succession
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.slots import ActiveModel, Candidate, Origin, Slot, Verdict
from bedside.agent.serving.changing import SHORT_CHARS, SlotChanges, short
from bedside.agent.serving.errands import Errands
from bedside.agent.serving.gate import Gate
from bedside.agent.serving.shadow import Shadow, ShadowTable
from bedside.agent.serving.shadows import Shadows
from bedside.core.errors import BedsideError
from bedside.service.logs import event

_LOGGER = logging.getLogger(__name__)

_JUDGEMENTS: Final = 3
"""Times that one candidate is judged because what serves has changed meanwhile; then somebody must decide."""


class ModelDesk:
    """Changes what serves. Use from one event loop.

    Args:
        models: files and the note of slots.
        pipeline: serves.
        gate: judges, by the same rules.
        streams: what the slot of a name reads; empty for what its manifest says.

    Attributes:
        prepare: awaited with a model that has come and its slot's name, before it serves or is judged.
    """

    def __init__(
        self, models: ModelStore, pipeline: Pipeline, gate: Gate, streams: Callable[[str], Sequence[str]]
    ) -> None:
        self._models = models
        self._pipeline = pipeline
        self._gate = gate
        self._lock = asyncio.Lock()
        self._errands = Errands()
        self._giving_up: set[str] = set()
        self._judging: list[Candidate] = []
        self._changes = SlotChanges(models, pipeline, gate.clock, streams)
        self._shadows = Shadows(self._changes, pipeline, gate, self._shadow_over)
        pipeline.fails = self._fails
        self.prepare: Callable[[ActiveModel, str], Awaitable[object]] = _as_it_is

    async def take(self, active: ActiveModel, origin: Origin | None = None) -> str:
        """A verified model has come: serve it once it is judged well; return its slot's name.

        One whose name `[serving] models` leaves out has no slot: the device may train it, and does not serve it.

        Args:
            active: its files are here.
            origin: the configured file that it came from; None when a plan or a result brought it.

        Raises:
            RefusedError: `too-many-models`.
            TrustError, MalformedError, StoreError: what is on the disk does not hold any more; it is as if it had not
                come.
            UnavailableError: `runtime-missing`, when the configuration asks for LiteRT.
        """
        if (name := self._known(active, origin)) is not None:
            await self._judge(name)  # where an earlier judgement came to no end, for instance on a full disk
            return name
        await self._models.settle(active)
        name = await asyncio.to_thread(self._models.name_of, active)
        if origin is None and not self._gate.rules.serves(name):
            event(_LOGGER, "model-not-for-here", slot=name, model=short(active))
            return name
        await self.prepare(active, name)
        if name not in self._pipeline.engine.slots:
            return await self._changes.begin(active, origin)
        async with self._lock:
            self._note(name, partial(succession.propose, candidate=Candidate(active, "gate", origin)))
        event(_LOGGER, "model-proposed", slot=name, model=short(active))
        await self._judge(name)
        return name

    async def resume(self, active: ActiveModel, origin: Origin | None = None) -> None:
        """At a start: serve what served, and go on with what is noted of a candidate.

        Raises:
            BedsideError: as `SlotChanges.begin`.
        """
        name = await self._changes.begin(active, origin)
        candidate = self._changes.slot(name).candidate
        if candidate is not None and candidate.stage == "shadow":
            self._errands.run(name, self._begin_shadow(name))
        elif candidate is not None or self._changes.slot(name).waiting is not None:
            self._errands.run(name, self._next(name))

    def slots(self) -> dict[str, tuple[Slot, ShadowTable | None]]:
        """What serves, by name, and the newest shadow run since this process started.

        Raises:
            StoreError: `active-model`.
        """
        return {name: (slot, self._shadows.tables.get(name)) for name, slot in self._models.slots().items()}

    async def roll_back(self, name: str) -> None:
        """Serve the previous model again, from the next window on.

        Raises:
            ProtocolError: `no-such-model`, `no-previous-model`.
            BedsideError: as `SlotChanges.go_back`.
        """
        async with self._lock:
            await self._changes.go_back(name, self._by_hand(name, "roll-back"))

    async def promote(self, name: str) -> None:
        """Serve the candidate, whatever was or will be found.

        Raises:
            ProtocolError: `no-such-model`, `no-candidate`.
            BedsideError: as `SlotChanges.go_on`.
        """
        async with self._lock:
            await self._advance(name, self._by_hand(name, "promote"))

    async def accept(self, name: str) -> None:
        """Serve the newest model that was refused, rejected or rolled back after all.

        Raises:
            ProtocolError: `no-such-model`, `nothing-withdrawn`.
            BedsideError: as `SlotChanges.go_on`.
        """
        async with self._lock:
            await self._advance(name, self._by_hand(name, "accept"))

    async def reject(self, name: str) -> None:
        """Let the candidate go, or agree that one was refused.

        Raises:
            ProtocolError: `no-such-model`, `no-candidate`.
            StoreError: `file-write`.
        """
        async with self._lock:
            rejected = self._by_hand(name, "reject")
            self._note(name, lambda _: rejected)

    async def reopen(self, name: str) -> None:
        """Serve the same model as its files are now: with what is personal of it, or without.

        Raises:
            ProtocolError: `no-such-model`.
            BedsideError: the model cannot be opened; what served goes on.
        """
        async with self._lock:
            if name in self._pipeline.engine.slots:
                await self._changes.reopen(name)

    async def settled(self) -> None:
        """Wait until nothing is judged or changed any more; a shadow run may be under way."""
        await self._errands.done()

    def close(self) -> None:
        """Judge and shadow no longer; what was begun goes on at the next start."""
        self._errands.cancel()
        self._shadows.close()

    def release(self, name: str) -> None:
        """Serve a slot no longer."""
        self._shadows.end(name)
        self._changes.release(name)

    def _by_hand(self, name: str, action: succession.Action) -> Slot:
        return succession.by_hand(self._changes.slot(name), action, self._changes.now_s())

    def _known(self, active: ActiveModel, origin: Origin | None) -> str | None:
        """The slot in which a model serves, is a candidate already, or was withdrawn."""
        for name, slot in self._models.known().items():
            if name not in self._pipeline.engine.slots:
                continue
            coming = (one.model for one in (slot.candidate, slot.waiting) if one is not None)
            if not any(one.same(active) for one in (slot.model, *coming, *slot.withdrawn)):
                continue
            if succession.is_withdrawn(slot, active):
                event(_LOGGER, "model-stays-away", slot=name, model=short(active))
            if origin is not None:
                self._models.activate(name, slot.model, origin)
            return name
        return None

    async def _judge(self, name: str) -> None:
        """Judge the candidate, if it waits for that, and do what follows."""
        for _ in range(_JUDGEMENTS):
            slot = self._changes.slot(name)
            candidate = slot.candidate
            if candidate is None or candidate.stage != "gate" or candidate in self._judging:
                return
            self._judging.append(candidate)
            try:
                verdict = await self._gate.judge(slot.model, candidate.model, self._pipeline.streams_of(name))
            except BedsideError as error:
                async with self._lock:
                    if self._changes.slot(name).candidate == candidate:
                        self._changes.let_go(name, error)
                raise
            finally:
                self._judging.remove(candidate)
            async with self._lock:
                now = self._changes.slot(name)
                if now.candidate != candidate:
                    return  # somebody decided meanwhile
                if now.model.same(slot.model):
                    await self._judged(name, now, verdict)
                    return
        async with self._lock:  # each time it was compared with what serves no longer
            slot = self._changes.slot(name)
            if slot.candidate is not None and slot.candidate.stage == "gate":
                why = "what serves changed each time that it was judged"
                found = self._changes.verdict(slot.candidate.model, "not-judged", why)
                self._note(name, partial(succession.hold, verdict=found))

    async def _judged(self, name: str, slot: Slot, verdict: Verdict) -> None:
        judged = verdict.model[:SHORT_CHARS]
        event(_LOGGER, "model-judged", slot=name, model=judged, outcome=verdict.outcome, why=verdict.sentence)
        if verdict.outcome == "refused":
            self._note(name, partial(succession.withdraw, verdict=verdict))
        elif self._gate.rules.shadow_windows:
            self._note(name, partial(succession.to_shadow, verdict=verdict))
            await self._shadows.begin(name)
        elif verdict.outcome == "uncompared":
            self._note(name, partial(succession.hold, verdict=verdict))
        else:
            await self._advance(name, succession.promote(slot, verdict))

    async def _begin_shadow(self, name: str) -> None:
        async with self._lock:
            await self._shadows.begin(name)

    def _shadow_over(self, name: str, shadow: Shadow) -> None:
        self._errands.run(name, self._conclude(name, shadow))

    async def _conclude(self, name: str, shadow: Shadow) -> None:
        async with self._lock:
            await self._shadows.conclude(name, shadow)
            self._follow(name)

    async def _advance(self, name: str, promoted: Slot) -> None:
        await self._changes.go_on(name, promoted)
        self._shadows.tidy(name)
        self._follow(name)

    def _note(self, name: str, step: Callable[[Slot], Slot]) -> None:
        self._changes.note(name, step)
        self._shadows.tidy(name)
        self._follow(name)

    def _follow(self, name: str) -> None:
        """Judge what has waited until there was no candidate."""
        slot = self._changes.slot(name)
        if slot.candidate is None and slot.waiting is not None:
            self._errands.run(name, self._next(name))

    async def _next(self, name: str) -> None:
        async with self._lock:
            self._changes.note(name, succession.follow)
        await self._judge(name)

    def _fails(self, name: str, model: Model) -> None:
        """A model fails at work; called in the loop, for each window that finds it so."""
        slot = self._models.known().get(name)
        if slot is not None and slot.previous is not None and name not in self._giving_up:
            self._giving_up.add(name)
            error = self._pipeline.engine.slots[name].error
            self._errands.run(name, self._give_up(name, model, error.sentence if error is not None else ""))

    async def _give_up(self, name: str, model: Model, why: str) -> None:
        try:
            async with self._lock:
                if self._pipeline.engine.slots[name].model is model:
                    slot = self._changes.slot(name)
                    verdict = self._changes.verdict(slot.model, "failed", f"it failed at work: {why}")
                    await self._changes.go_back(name, succession.roll_back(slot, verdict))
        finally:
            self._giving_up.discard(name)


async def _as_it_is(_active: ActiveModel, _name: str) -> None:
    """A model serves as it came."""
