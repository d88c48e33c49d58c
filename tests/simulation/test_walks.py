"""Hypothesis draws every pair and long walks of the three machines: a row of the table, or the typed refusal."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.errors import ProtocolError
from bedside.core.securesum.aggregator import COHORT, CohortInput, CohortPhase
from bedside.core.securesum.device import CONTRIBUTION, ContributionInput, ContributionState
from bedside.core.securesum.trustee import TRUSTEE, TrusteeInput, TrusteeState

CHECKED = settings(max_examples=300, deadline=None)
DEVICE, HELPER, GROUP = (
    (CONTRIBUTION, ContributionState, ContributionInput, ContributionState.OFFERED),
    (TRUSTEE, TrusteeState, TrusteeInput, TrusteeState.ASKED),
    (COHORT, CohortPhase, CohortInput, CohortPhase.OPENING),
)
_D, _DI, _T, _TI = ContributionState, ContributionInput, TrusteeState, TrusteeInput
_C, _CI = CohortPhase, CohortInput


def walk(machine, state, events):
    """The states that a stream of arbitrary events leads through; what is refused changes nothing."""
    path = [(None, state)]
    for event in events:
        with contextlib.suppress(ProtocolError):
            state = machine.advance(state, event)
            path.append((event, state))
    return path


def walks(machine_of, max_size=40):
    machine, _, inputs, start = machine_of
    return st.lists(st.sampled_from(inputs), max_size=max_size).map(lambda events: walk(machine, start, events))


@pytest.mark.parametrize("machine_of", [DEVICE, HELPER, GROUP], ids=lambda m: m[0].name)
@CHECKED
@given(data=st.data())
def test_any_pair_is_a_row_or_a_bad_transition(machine_of, data) -> None:
    machine, states, inputs, _ = machine_of
    state, event = data.draw(st.sampled_from(states)), data.draw(st.sampled_from(inputs))
    before = dict(machine.transitions)
    if (state, event) in before:
        assert machine.advance(state, event) is before[state, event]
    else:
        with pytest.raises(ProtocolError, match=f"that is {state.value} cannot take {event.value}") as caught:
            machine.advance(state, event)
        assert caught.value.code == "bad-transition"
    assert machine.transitions == before


@pytest.mark.parametrize("machine_of", [DEVICE, HELPER, GROUP], ids=lambda m: m[0].name)
@CHECKED
@given(data=st.data())
def test_an_input_of_another_machine_is_a_bad_transition(machine_of, data) -> None:
    machine, states, _, _ = machine_of
    others = [event for _, _, inputs, _ in (DEVICE, HELPER, GROUP) if inputs is not machine_of[2] for event in inputs]
    with pytest.raises(ProtocolError):
        machine.advance(data.draw(st.sampled_from(states)), data.draw(st.sampled_from(others)))


@CHECKED
@given(path=walks(HELPER))
def test_a_trustee_votes_once_and_answers_only_what_it_voted_for(path) -> None:
    events = [event for event, _ in path]
    states = [state for _, state in path]
    assert events.count(_TI.VOTE) <= 1
    if _T.ANSWERED in states:
        assert _T.VOTED in states[: states.index(_T.ANSWERED)]


@CHECKED
@given(path=walks(HELPER))
def test_a_trustee_never_answers_after_it_burned_lost_or_refused_and_never_closes_after_it_answered(path) -> None:
    states = [state for _, state in path]
    for end in (_T.ANSWERED, _T.BURNED, _T.LOST, _T.REFUSED):
        if end in states:
            assert set(states[states.index(end) :]) == {end}


@CHECKED
@given(path=walks(HELPER))
def test_a_trustee_that_lost_its_key_never_says_burned(path) -> None:
    events = [event for event, _ in path]
    if _TI.KEY_LOST in events:
        assert path[-1][1] is _T.LOST


@CHECKED
@given(path=walks(DEVICE))
def test_a_contribution_is_counted_or_dropped_for_good_and_never_without_having_been_made(path) -> None:
    states = [state for _, state in path]
    for end in (_D.COUNTED, _D.DROPPED, _D.DECLINED):
        if end in states:
            assert set(states[states.index(end) :]) == {end}
    if _D.COUNTED in states:
        assert _D.READY in states[: states.index(_D.COUNTED)]


@CHECKED
@given(path=walks(DEVICE))
def test_a_device_trains_into_one_upload_per_plan(path) -> None:
    assert [event for event, _ in path].count(_DI.TRAINED) <= 1
    states = [state for _, state in path]
    if _D.READY in states:
        assert _D.TRAINING not in states[states.index(_D.READY) :]


@CHECKED
@given(path=walks(DEVICE))
def test_a_delta_is_freed_by_words_of_the_own_trustee_only_and_used_again_once(path) -> None:
    events, states = [event for event, _ in path], [state for _, state in path]
    if _D.FREED in states:
        assert events[states.index(_D.FREED)] in (_DI.RECEIPT_OUT, _DI.BURNED)
        assert _D.COUNTED not in states
    assert events.count(_DI.REUSED) <= 1


@CHECKED
@given(path=walks(GROUP))
def test_a_cohort_is_opened_only_through_every_step_and_sealed_once(path) -> None:
    events = [event for event, _ in path]
    states = [state for _, state in path]
    assert events.count(_CI.SEAL) <= 1
    if _C.OPENED in states:
        steps = [_CI.ALL_OPENED, _CI.SEAL, _CI.ALL_VOTED, _CI.ALL_ANSWERED, _CI.SUM_HOLDS]
        assert events[1:] == steps
    for end in (_C.OPENED, _C.LEFT_OUT):
        if end in states:
            assert states[-1] is end


@CHECKED
@given(path=walks(GROUP))
def test_once_all_have_answered_a_cohort_cannot_be_given_up_except_by_its_sum(path) -> None:
    for (_, before), (event, after) in itertools.pairwise(path):
        if before is _C.ANSWERED:
            assert (event, after) in {(_CI.SUM_HOLDS, _C.OPENED), (_CI.SUM_FAILS, _C.LEFT_OUT)}
