"""The calls about models."""

from __future__ import annotations

import pytest

from bedside.agent.serving.view import slot_view
from bedside.core.errors import ProtocolError


async def test_a_slot_comes_over_the_wire_as_it_is(served) -> None:
    async with served.agent() as agent:
        (slot,) = await agent.model_slots()
    assert slot == slot_view("tiny", served.desk.slot, served.desk.table)
    assert (slot.stage, slot.waiting, slot.verdicts[0].old) == ("shadow", slot.candidate, 0.9)
    assert (slot.shadow.pairs[("a", "b")], slot.shadow.dropped, slot.shadow.latency.count) == (1, 4, 1)
    assert slot.shadow.disagreement == pytest.approx(1 / 3)


async def test_orders_reach_the_desk_and_what_it_refuses_comes_back(served) -> None:
    async with served.agent() as agent:
        for order in (agent.roll_back_model, agent.accept_model, agent.promote_model, agent.reject_model):
            assert (await order("tiny")).name == "tiny"
        with pytest.raises(ProtocolError, match="no model 'har' serves here"):
            await agent.promote_model("har")
    assert [order for order, _ in served.desk.orders] == ["roll_back", "accept", "promote", "reject"]
