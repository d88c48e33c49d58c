"""Which model follows which in a slot: pure steps from one `Slot` to the next, each noted durably before it is done.

    announced -> candidate (gate) -> serves            the one that served is `previous`
                                  -> candidate (shadow) -> serves
                                                        -> candidate (held) -> promoted or rejected by somebody
                                  -> withdrawn

Invariants:
    * What serves changes by `promote` and `roll_back` alone, and both leave a model that served well in the slot.
    * What was withdrawn is no candidate again until somebody accepts it.

Source: DESIGN section 6, two slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, assert_never

import msgspec

from bedside.agent.rounds.slots import Candidate, Slot, Verdict
from bedside.core.errors import ProtocolError

if TYPE_CHECKING:
    from bedside.agent.rounds.slots import ActiveModel

MAX_WITHDRAWN: Final = 16
"""Models of one slot that are known not to come back; a coordinator announces the newest one."""
MAX_VERDICTS: Final = 8
"""Decisions of one slot that are told."""

Action = Literal["roll-back", "promote", "accept", "reject"]
"""What somebody may order."""


def propose(slot: Slot, candidate: Candidate) -> Slot:
    """A model has come: it is the candidate, or waits until the one in the shadow is decided on."""
    if slot.candidate is not None and slot.candidate.stage == "shadow":
        return msgspec.structs.replace(slot, waiting=candidate, lost=False)
    return msgspec.structs.replace(slot, candidate=candidate, waiting=None, lost=False)


def to_shadow(slot: Slot, verdict: Verdict) -> Slot:
    """The candidate has passed the gate and runs beside the one that serves."""
    return _with(slot, verdict, candidate=_staged(_candidate(slot), "shadow"))


def hold(slot: Slot, verdict: Verdict) -> Slot:
    """The candidate waits for somebody's word."""
    return _with(slot, verdict, candidate=_staged(_candidate(slot), "held"))


def promote(slot: Slot, verdict: Verdict) -> Slot:
    """The candidate serves, and the one that did is the one to go back to.

    Raises:
        ProtocolError: `no-candidate`.
    """
    candidate = _candidate(slot)
    return _with(
        slot,
        verdict,
        model=candidate.model,
        previous=slot.model,
        origin=candidate.origin or slot.origin,
        candidate=None,
        withdrawn=tuple(one for one in slot.withdrawn if not one.same(candidate.model)),
        lost=False,
    )


def withdraw(slot: Slot, verdict: Verdict) -> Slot:
    """The candidate does not serve, and does not come back by itself.

    Raises:
        ProtocolError: `no-candidate`.
    """
    candidate = _candidate(slot)
    return _with(
        slot,
        verdict,
        candidate=None,
        origin=candidate.origin or slot.origin,  # the file is known, and is not judged again at the next start
        withdrawn=_withdrawn(slot, candidate.model),
    )


def reject(slot: Slot, verdict: Verdict) -> Slot:
    """As `withdraw`, by somebody; where the gate has refused the candidate already, that is agreed to.

    Raises:
        ProtocolError: `no-candidate`.
    """
    if slot.candidate is None and concern(slot):
        return _with(slot, verdict)
    return withdraw(slot, verdict)


def forget_candidate(slot: Slot, *, lost: bool) -> Slot:
    """The candidate's file does not hold: as if it had not come; `lost` wants its result again."""
    return msgspec.structs.replace(slot, candidate=None, lost=slot.lost or lost)


def follow(slot: Slot) -> Slot:
    """What waited is the candidate, where there is none."""
    if slot.candidate is not None or slot.waiting is None:
        return slot
    return msgspec.structs.replace(slot, candidate=slot.waiting, waiting=None)


def roll_back(slot: Slot, verdict: Verdict) -> Slot:
    """The previous model serves again, and the one that did is withdrawn.

    Raises:
        ProtocolError: `no-previous-model`.
    """
    if slot.previous is None:
        raise ProtocolError(
            "no-previous-model",
            "there is no previous model to return to: this is the first one, or the last rollback has returned to it",
            remedy="bedside agent model list DIRECTORY",
        )
    return _with(slot, verdict, model=slot.previous, previous=None, withdrawn=_withdrawn(slot, slot.model), lost=False)


def accept(slot: Slot, verdict: Verdict) -> Slot:
    """The newest that was withdrawn serves after all.

    Raises:
        ProtocolError: `nothing-withdrawn`.
    """
    if not slot.withdrawn:
        raise ProtocolError(
            "nothing-withdrawn",
            "no model of this name was refused, rejected or rolled back",
            remedy="bedside agent model list DIRECTORY",
        )
    accepted = promote(msgspec.structs.replace(slot, candidate=Candidate(slot.withdrawn[-1])), verdict)
    return msgspec.structs.replace(accepted, candidate=slot.candidate)


def after_loss(slot: Slot, *, bundle_holds: bool) -> Slot | None:
    """What serves where the current model's files do not hold any more; None where there is nothing.

    That is the previous model, or else the bundle's own parameters.

    Args:
        slot: whose model cannot be opened.
        bundle_holds: whether it is its checkpoint that is damaged, and not its bundle.
    """
    if slot.previous is not None and (bundle_holds or slot.previous.bundle != slot.model.bundle):
        return msgspec.structs.replace(slot, model=slot.previous, previous=None, lost=True)
    if slot.model.checkpoint and bundle_holds:
        return msgspec.structs.replace(slot, model=msgspec.structs.replace(slot.model, checkpoint=""), lost=True)
    return None


def by_hand(slot: Slot, action: Action, at_s: int) -> Slot:
    """What somebody has ordered at a Unix time.

    Raises:
        ProtocolError: `no-previous-model`, `no-candidate`, `nothing-withdrawn`.
    """
    last = (slot.model, *slot.withdrawn)[-1]
    about = slot.candidate.model if slot.candidate is not None else last
    match action:
        case "roll-back":
            return roll_back(slot, Verdict(slot.model.name, "rolled-back", "somebody has rolled it back", at_s=at_s))
        case "promote":
            return promote(slot, Verdict(about.name, "by-hand", "somebody has promoted it", at_s=at_s))
        case "accept":
            return accept(slot, Verdict(last.name, "by-hand", "somebody has accepted it", at_s=at_s))
        case "reject":
            return reject(slot, Verdict(about.name, "rejected", "somebody has rejected it", at_s=at_s))
        case _:
            assert_never(action)


def is_withdrawn(slot: Slot, model: ActiveModel) -> bool:
    """Whether a model does not come back by itself."""
    return any(one.same(model) for one in slot.withdrawn)


def concern(slot: Slot) -> str:
    """Why somebody should look at a slot whose model serves well; empty where nobody need. Without any number."""
    if slot.candidate is not None and slot.candidate.stage == "held":
        return "has a candidate that waits for somebody's word: promote or reject it"
    outcome = slot.verdicts[-1].outcome if slot.verdicts else ""
    if outcome == "refused":
        return "goes on serving: a newer one was refused before it served"
    if outcome == "failed":
        return "serves on or again: a newer one failed"
    return ""


def _candidate(slot: Slot) -> Candidate:
    if slot.candidate is None:
        raise ProtocolError(
            "no-candidate", "there is no candidate under this name", remedy="bedside agent model list DIRECTORY"
        )
    return slot.candidate


def _staged(candidate: Candidate, stage: str) -> Candidate:
    return msgspec.structs.replace(candidate, stage=stage)


def _withdrawn(slot: Slot, model: ActiveModel) -> tuple[ActiveModel, ...]:
    others = [one for one in slot.withdrawn if not one.same(model)]
    return (*others, model)[-MAX_WITHDRAWN:]


def _with(slot: Slot, verdict: Verdict, **changes: object) -> Slot:
    return msgspec.structs.replace(slot, verdicts=(*slot.verdicts, verdict)[-MAX_VERDICTS:], **changes)
