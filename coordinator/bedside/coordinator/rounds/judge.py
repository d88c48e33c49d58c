"""What a cohort needs next: a pure decision over what the store holds, the time, and who is online.

The driver acts on it; after a crash the same facts give the same decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bedside.coordinator.rounds.state import RoundState, phase_of
from bedside.coordinator.store.contributions import CohortRow, WordRow
from bedside.core.errors import ProtocolError
from bedside.core.securesum.aggregator import CohortInput, CohortPhase
from bedside.core.signing import VerifiedCredential, parse_strict
from bedside.proto.v1 import round_pb2
from bedside.proto.v1.common_pb2 import Signed

_MS_PER_S: Final = 1_000


@dataclass(frozen=True, slots=True)
class Patience:
    """How long trustees have, milliseconds."""

    opening_ms: int
    answer_ms: int


@dataclass(frozen=True, slots=True)
class Next:
    """What a cohort takes next.

    Attributes:
        event: the input of its machine, or None to wait.
        code: why it is left out; empty otherwise.
        sentence: the same for a person.
        deadline_ms: when to look again at the latest, milliseconds since 1970; 0 when only news can change it.
    """

    event: CohortInput | None = None
    code: str = ""
    sentence: str = ""
    deadline_ms: int = 0


@dataclass(frozen=True, slots=True)
class Crowd:
    """The devices that a cohort's roster lists.

    Attributes:
        listed: all of them.
        is_online: whether a round should wait for one.
    """

    listed: list[VerifiedCredential]
    is_online: Callable[[VerifiedCredential], bool]


def judge_cohort(state: RoundState, row: CohortRow, crowd: Crowd, patience: Patience, now_ms: int) -> Next:
    """Decide what a cohort takes next."""
    phase = phase_of(row)
    if phase is CohortPhase.ANSWERED:
        return Next(CohortInput.SUM_HOLDS)
    if phase in (CohortPhase.OPENED, CohortPhase.LEFT_OUT):
        return Next()
    ended = _ended_by_trustee(state, row.cohort)
    if ended is not None:
        return ended
    if phase is CohortPhase.COLLECTING:
        return _judge_collection(state, row, crowd, now_ms)
    kind, event, wait_ms = {
        CohortPhase.OPENING: ("opening", CohortInput.ALL_OPENED, patience.opening_ms),
        CohortPhase.SEALED: ("vote", CohortInput.ALL_VOTED, patience.answer_ms),
        CohortPhase.REVEALING: ("answer", CohortInput.ALL_ANSWERED, patience.answer_ms),
    }[phase]
    if state.is_complete(row.cohort, kind):
        overflow = _overflow(state, row.cohort) if phase is CohortPhase.OPENING else None
        return overflow or Next(event)
    deadline_ms = row.phase_since_ms + wait_ms
    if phase is CohortPhase.OPENING:
        deadline_ms = min(deadline_ms, state.plan.plan.close_at_s * _MS_PER_S)
    if now_ms < deadline_ms:
        return Next(deadline_ms=deadline_ms)
    missing = [
        f"{trustee.trustee} of site {trustee.site}"
        for trustee in state.plan.cohort(row.cohort).trustees
        if state.word(row.cohort, kind, trustee.credential_digest) is None
    ]
    return Next(CohortInput.TIMED_OUT, f"no-{kind}", f"no {kind} came in time from trustee {' and '.join(missing)}")


def _ended_by_trustee(state: RoundState, cohort: int) -> Next | None:
    """A trustee's refusal or closing ends its cohort, with the trustee's own sentence."""
    for trustee in state.plan.cohort(cohort).trustees:
        refusal = state.refusal(cohort, trustee.credential_digest)
        if refusal is not None:
            sentence = f"site {trustee.site} refused: {refusal.sentence}"
            return Next(CohortInput.TRUSTEE_REFUSED, refusal.code, sentence)
        closed = state.word(cohort, "closed", trustee.credential_digest)
        if closed is not None:
            reason = close_reason(closed)
            return Next(CohortInput.TRUSTEE_CLOSED, f"closed-{reason}", _CLOSINGS[reason].format(site=trustee.site))
    return None


def _overflow(state: RoundState, cohort: int) -> Next | None:
    """Noise that sites add of their own may be more than the plan's ring was made for: nobody shall train for that."""
    openings = [state.opening(cohort, trustee) for trustee in state.trustees(cohort)]
    try:
        state.plan.check_ring(opening.noise_multiplier_e6 for opening in openings if opening is not None)
    except ProtocolError as error:
        return Next(
            CohortInput.TRUSTEE_REFUSED, error.code, f"the trustees' noise does not fit the ring: {error.sentence}"
        )
    return None


_CLOSINGS: Final = {
    "burned": "the trustee of site {site} destroyed its round key without answering",
    "lost": "the trustee of site {site} lost its round key (its machine was restarted); the next round gets a new one",
    "retired": "site {site} retired its trustee",
    "unknown": "the trustee of site {site} closed the round for a reason that this version does not know",
}
_REASONS: Final = {
    round_pb2.CLOSE_REASON_BURNED: "burned",
    round_pb2.CLOSE_REASON_LOST: "lost",
    round_pb2.CLOSE_REASON_RETIRED: "retired",
}


def close_reason(word: WordRow) -> str:
    """`burned`, `lost`, `retired`, or `unknown` for whatever a later version says."""
    closed = round_pb2.Closed.FromString(parse_strict(Signed, word.signed).payload)  # verified when it came
    return _REASONS.get(closed.reason, "unknown")


def _judge_collection(state: RoundState, row: CohortRow, crowd: Crowd, now_ms: int) -> Next:
    plan = state.plan.plan
    close_at_ms = plan.close_at_s * _MS_PER_S
    accepted = undecided = waited_for = 0
    for device in crowd.listed:
        upload = state.upload(device.digest)
        if upload is not None and upload.accepted:
            accepted += 1
        elif state.refusal(row.cohort, device.digest) is None:
            undecided += 1
            waited_for += upload is not None or crowd.is_online(device)
    closed = now_ms >= close_at_ms
    if accepted >= plan.min_contributors and (closed or not waited_for or accepted >= plan.max_contributors):
        return Next(CohortInput.SEAL)
    if closed or (crowd.listed and accepted + undecided < plan.min_contributors):
        return Next(CohortInput.TOO_FEW, "too-few-devices", _too_few(state, row, accepted))
    return Next(deadline_ms=close_at_ms)


def _too_few(state: RoundState, row: CohortRow, accepted: int) -> str:
    codes = [refusal.code for refusal in state.refusals if refusal.cohort == row.cohort]
    why = f" ({len(codes)} declined: {', '.join(sorted(set(codes)))})" if codes else ""
    return f"{accepted} devices sent an update; the plan asks for {state.plan.plan.min_contributors}{why}"
