"""A slot as programs and people look at it, whether its agent runs or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bedside.agent.inference.latency import LatencyFacts
from bedside.agent.rounds.slots import Slot, Verdict
from bedside.agent.rounds.succession import concern
from bedside.agent.serving.shadow import ShadowTable


@dataclass(frozen=True, slots=True)
class ShadowView:
    """What a shadow run has counted; as in `ShadowTable`."""

    wanted: int
    windows: int
    differing: int
    pairs: Mapping[tuple[str, str], int]
    failed: int
    dropped: int
    latency: LatencyFacts
    error: str = ""

    @property
    def disagreement(self) -> float:
        """Share of windows on which they differ; 0 before the first."""
        return self.differing / max(1, self.windows)


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot. Models are named by the hexadecimal digest of their checkpoint or bundle.

    Attributes:
        name: of the slot.
        current: serves.
        previous: what a rollback returns to; empty when there is nothing.
        candidate: may come to serve; empty when there is none.
        stage: of the candidate: `gate`, `shadow` or `held`; empty as well.
        waiting: comes after the candidate in the shadow; empty as well.
        withdrawn: refused, rejected or rolled back, the newest last.
        verdicts: what was decided, the newest last.
        concern: why somebody should look at it; empty when nobody need.
        shadow: the newest run since the process started; None when there was none.
    """

    name: str
    current: str
    previous: str = ""
    candidate: str = ""
    stage: str = ""
    waiting: str = ""
    withdrawn: tuple[str, ...] = field(default=())
    verdicts: tuple[Verdict, ...] = field(default=())
    concern: str = ""
    shadow: ShadowView | None = None


class ModelSlots(Protocol):
    """The slots of a device; `bedside.agent.client.LocalAgent` has the same methods, and says what they refuse."""

    async def model_slots(self) -> list[SlotView]:
        """Every slot."""

    async def roll_back_model(self, name: str) -> SlotView:
        """Serve the previous model again."""

    async def accept_model(self, name: str) -> SlotView:
        """Serve the newest model that was put away after all."""

    async def promote_model(self, name: str) -> SlotView:
        """Serve the candidate."""

    async def reject_model(self, name: str) -> SlotView:
        """Let the candidate go."""


def slot_view(name: str, slot: Slot, table: ShadowTable | None = None) -> SlotView:
    """A slot as it is noted, and its newest shadow run."""
    return SlotView(
        name=name,
        current=slot.model.name,
        previous=slot.previous.name if slot.previous is not None else "",
        candidate=slot.candidate.model.name if slot.candidate is not None else "",
        stage=slot.candidate.stage if slot.candidate is not None else "",
        waiting=slot.waiting.model.name if slot.waiting is not None else "",
        withdrawn=tuple(one.name for one in slot.withdrawn),
        verdicts=slot.verdicts,
        concern=concern(slot),
        shadow=_shadow_view(table) if table is not None else None,
    )


def _shadow_view(table: ShadowTable) -> ShadowView:
    return ShadowView(
        table.wanted,
        table.windows,
        table.differing,
        dict(table.pairs),
        table.failed,
        table.dropped,
        table.latency_facts(),
        table.error,
    )
