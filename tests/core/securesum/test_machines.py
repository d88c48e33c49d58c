"""Every (state, input) pair of every machine: a defined next state, or a protocol error."""

from __future__ import annotations

import itertools

import pytest

from bedside.core.errors import ProtocolError
from bedside.core.securesum.aggregator import COHORT, CohortInput, CohortPhase
from bedside.core.securesum.device import CONTRIBUTION, ContributionInput, ContributionState
from bedside.core.securesum.trustee import TRUSTEE, TrusteeInput, TrusteeState

MACHINES = [
    (CONTRIBUTION, ContributionState, ContributionInput, ContributionState.OFFERED),
    (TRUSTEE, TrusteeState, TrusteeInput, TrusteeState.ASKED),
    (COHORT, CohortPhase, CohortInput, CohortPhase.OPENING),
]


@pytest.mark.parametrize(("machine", "states", "inputs", "start"), MACHINES, ids=lambda v: getattr(v, "name", ""))
def test_what_is_not_in_the_table_is_a_protocol_error(machine, states, inputs, start):
    for state, event in itertools.product(states, inputs):
        if machine.accepts(state, event):
            assert machine.advance(state, event) in states
        else:
            with pytest.raises(ProtocolError) as caught:
                machine.advance(state, event)
            assert caught.value.code == "bad-transition"


@pytest.mark.parametrize(("machine", "states", "inputs", "start"), MACHINES, ids=lambda v: getattr(v, "name", ""))
def test_every_state_is_reachable_and_no_final_state_is_left(machine, states, inputs, start):
    reached, frontier = {start}, [start]
    while frontier:
        state = frontier.pop()
        for event in inputs:
            if machine.accepts(state, event) and (after := machine.advance(state, event)) not in reached:
                reached.add(after)
                frontier.append(after)
    assert reached == set(states)
    assert any(machine.is_final(state) for state in states)
