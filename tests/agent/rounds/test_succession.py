"""Which model follows which: whatever is done in whatever order, one that served well is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.agent.rounds import succession
from bedside.agent.rounds.slots import ActiveModel, Candidate, Origin, Slot, Verdict
from bedside.core.errors import ProtocolError


def model(number: int) -> ActiveModel:
    return ActiveModel("aa" * 32, f"{number:064x}", ("cc" * 32,))


VERDICT = Verdict("aa" * 32, "passed", "a test says so")
ACTIONS = ("roll-back", "promote", "accept", "reject")


def test_a_promoted_model_keeps_the_one_before_it_at_hand_and_its_file() -> None:
    slot = succession.propose(Slot(model(1), Origin("har.tar", "ff")), Candidate(model(2)))
    slot = succession.promote(slot, VERDICT)
    assert (slot.model, slot.previous, slot.candidate, slot.origin.path) == (model(2), model(1), None, "har.tar")
    assert set(slot.needed()) == {model(1), model(2)}
    back = succession.by_hand(slot, "roll-back", 5)
    assert (back.model, back.previous, back.withdrawn) == (model(1), None, (model(2),))
    assert model(2) in back.needed()  # somebody may accept it
    assert (back.verdicts[-1].outcome, back.verdicts[-1].at_s) == ("rolled-back", 5)


def test_a_refused_file_of_the_configuration_is_known_and_not_judged_at_every_start() -> None:
    slot = succession.propose(
        Slot(model(1), Origin("har.tar", "ff")), Candidate(model(2), "gate", Origin("har.tar", "ee"))
    )
    assert succession.withdraw(slot, VERDICT).origin == Origin("har.tar", "ee")


def test_a_new_candidate_replaces_one_that_is_judged_or_held_and_waits_for_one_in_the_shadow() -> None:
    slot = succession.propose(Slot(model(1)), Candidate(model(2)))
    assert succession.propose(slot, Candidate(model(3))).candidate == Candidate(model(3))
    held = succession.hold(slot, VERDICT)
    assert succession.propose(held, Candidate(model(3))).candidate == Candidate(model(3))
    shadow = succession.propose(succession.to_shadow(slot, VERDICT), Candidate(model(3)))
    assert (shadow.candidate, shadow.waiting) == (Candidate(model(2), "shadow"), Candidate(model(3)))
    assert succession.follow(shadow) == shadow
    over = succession.follow(succession.withdraw(shadow, VERDICT))
    assert (over.candidate, over.waiting) == (Candidate(model(3)), None)


def test_what_is_accepted_leaves_a_candidate_where_it_is() -> None:
    slot = succession.withdraw(succession.propose(Slot(model(1)), Candidate(model(2))), VERDICT)
    slot = succession.by_hand(succession.propose(slot, Candidate(model(3))), "accept", 0)
    assert (slot.model, slot.candidate, slot.verdicts[-1].model) == (model(2), Candidate(model(3)), model(2).name)


def test_without_the_current_checkpoint_the_previous_serves_and_then_the_bundles_own_parameters() -> None:
    slot = succession.promote(succession.propose(Slot(model(1)), Candidate(model(2))), VERDICT)
    first = succession.after_loss(slot, bundle_holds=True)
    assert (first.model, first.lost) == (model(1), True)
    second = succession.after_loss(first, bundle_holds=True)
    assert (second.model.checkpoint, second.model.bundle) == ("", model(1).bundle)
    assert succession.after_loss(second, bundle_holds=True) is None
    assert succession.after_loss(slot, bundle_holds=False) is None  # the previous one is of the same bundle
    other = Slot(ActiveModel("bb" * 32, "", ()), previous=model(1))
    assert succession.after_loss(other, bundle_holds=False).model == model(1)
    assert not succession.propose(first, Candidate(model(2))).lost


@given(
    st.lists(
        st.one_of(st.sampled_from([*ACTIONS, "pass", "refuse", "shadow", "hold", "follow"]), st.integers(2, 9)),
        max_size=30,
    )
)
def test_in_any_order_what_serves_was_promoted_and_what_was_put_away_does_not_come_back(steps) -> None:
    slot, promoted = Slot(model(1)), {model(1)}
    for step in steps:
        before = slot
        try:
            slot = _taken(slot, step)
        except ProtocolError:
            assert slot == before
            continue
        if slot.model != before.model:
            assert slot.model in ({before.candidate.model} if before.candidate else set()) | {
                before.previous,
                *before.withdrawn[-1:],
            }
            promoted.add(slot.model)
            assert step == "roll-back" or slot.previous == before.model
        assert slot.model in promoted
        assert slot.previous is None or slot.previous in promoted
        assert not succession.is_withdrawn(slot, slot.model)
        assert len(slot.verdicts) <= succession.MAX_VERDICTS
        assert {slot.model, slot.previous or slot.model} <= set(slot.needed())


def _taken(slot: Slot, step: str | int) -> Slot:
    if isinstance(step, int):  # the desk proposes nothing that serves, was put away or is a candidate already
        new = model(step)
        coming = [one.model for one in (slot.candidate, slot.waiting) if one is not None]
        return slot if new in (slot.model, *coming, *slot.withdrawn) else succession.propose(slot, Candidate(new))
    if step in ACTIONS:
        return succession.by_hand(slot, step, 0)
    if step == "follow":
        return succession.follow(slot)
    done = {
        "pass": succession.promote,
        "refuse": succession.withdraw,
        "shadow": succession.to_shadow,
        "hold": succession.hold,
    }
    return done[step](slot, VERDICT)


def test_what_waits_for_somebody_is_told_without_a_number() -> None:
    slot = succession.propose(Slot(model(1)), Candidate(model(2)))
    told = Verdict("aa" * 32, "refused", "accuracy 0.512 against 0.934", "accuracy", 812, 0.934, 0.512)
    for found in (succession.hold(slot, told), succession.withdraw(slot, told)):
        assert succession.concern(found)
        assert not any(character.isdigit() for character in succession.concern(found))
    assert succession.concern(slot) == ""
    with pytest.raises(ProtocolError):
        succession.promote(Slot(model(1)), told)
