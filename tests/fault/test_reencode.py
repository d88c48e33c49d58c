"""A round that was burned costs nobody its training: the devices encode their kept deltas again, and count once."""

from __future__ import annotations

import pytest
from chaos_proxy import ChaosProxy
from federation import TASK, Agent, Federation, bedside
from test_kills import assert_all_counted_once, start_held_round, trustee

pytestmark = pytest.mark.system


def reuses(federation: Federation, agent: Agent) -> int:
    """How often a device has sent a delta that its trustee gave back."""
    return federation.table[agent.process].log.read_text().count("reused=True")


def test_after_a_burned_round_every_delta_is_sent_again_without_training_and_counted_once(
    federation: Federation, slow_link: ChaosProxy, slow_agent: Agent
) -> None:
    before = {label: reuses(federation, agent) for label, agent in federation.agents.items()}
    number = start_held_round(federation, slow_link, slow_agent)
    bedside("round", "stop", "--task", TASK, "--at-once", "--socket", federation.socket)
    detail = federation.wait_round(
        number,
        lambda one: all(trustee(one, site)["state"] == "burned" for site in federation.sites),
        "every trustee has burned its key",
    )
    assert not detail["counts"]
    slow_link.release()
    following = federation.start_round()
    assert_all_counted_once(federation, federation.finish_round(following))
    after = {label: reuses(federation, agent) for label, agent in federation.agents.items()}
    assert after == {label: count + 1 for label, count in before.items()}

    final = federation.start_round()
    assert_all_counted_once(federation, federation.finish_round(final))
    assert {label: reuses(federation, agent) for label, agent in federation.agents.items()} == after
