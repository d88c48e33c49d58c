"""The calls about what a device has for itself of its models."""

from __future__ import annotations

import pytest

from bedside.core.errors import ProtocolError


async def test_what_is_personal_comes_over_the_wire_as_it_is(served) -> None:
    async with served.agent() as agent:
        (view,) = await agent.personal_models()
    assert view == served.desk.views()["tiny"]
    assert (view.report.of_all.ece, view.report.serves.ece, view.report.tuned) == (None, 0.125, None)


async def test_runs_and_resets_reach_the_desk_and_what_it_refuses_comes_back(served) -> None:
    async with served.agent() as agent:
        assert (await agent.make_personal("tiny")).temperature == 1.5
        assert (await agent.reset_personal("tiny")).name == "tiny"
        with pytest.raises(ProtocolError, match="no model 'har' serves here"):
            await agent.make_personal("har")
    assert [order for order, _ in served.desk.orders] == ["make", "reset"]
