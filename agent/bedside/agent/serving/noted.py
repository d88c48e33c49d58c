"""The slots of a device whose agent does not run: what is changed is what serves from its next start on.

That is the way back for a device whose model takes its agent down.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from bedside.agent.rounds.succession import by_hand
from bedside.agent.serving.view import SlotView, slot_view

if TYPE_CHECKING:
    from bedside.agent.rounds.models import ModelStore
    from bedside.agent.rounds.succession import Action
    from bedside.core.clock import Clock

_NS_PER_S: Final = 1_000_000_000


class NotedSlots:
    """Changes the note; its process is the only writer of the device's state.

    Args:
        models: files and the note.
        clock: for the time of a verdict.
    """

    def __init__(self, models: ModelStore, clock: Clock) -> None:
        self._models = models
        self._clock = clock

    async def model_slots(self) -> list[SlotView]:
        """Every slot. Raises StoreError: `active-model`."""
        return [slot_view(name, slot) for name, slot in self._models.slots().items()]

    async def roll_back_model(self, name: str) -> SlotView:
        """Serve the previous model again."""
        return self._order(name, "roll-back")

    async def accept_model(self, name: str) -> SlotView:
        """Serve the newest model that was put away after all."""
        return self._order(name, "accept")

    async def promote_model(self, name: str) -> SlotView:
        """Serve the candidate."""
        return self._order(name, "promote")

    async def reject_model(self, name: str) -> SlotView:
        """Let the candidate go."""
        return self._order(name, "reject")

    def _order(self, name: str, action: Action) -> SlotView:
        at_s = self._clock.now_ns() // _NS_PER_S
        return slot_view(name, self._models.change(name, partial(by_hand, action=action, at_s=at_s)))
