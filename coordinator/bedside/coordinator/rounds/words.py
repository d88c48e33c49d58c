"""What trustees say in a round: openings, refusals, votes, answers, closings.

Invariants:
    * The first word of a kind for a plan and cohort stays; the same word again is fine, another one is an error.
    * A vote counts for the sealed set's root only, an answer for those votes only.
"""

from __future__ import annotations

import asyncio

from bedside.coordinator.blobs import Incoming
from bedside.coordinator.parts import Parts
from bedside.coordinator.rounds.claim import claim
from bedside.coordinator.rounds.state import RoundState, find_round, phase_of
from bedside.coordinator.store import contributions
from bedside.coordinator.store.contributions import RefusalRow, WordRow
from bedside.core.errors import MalformedError, ProtocolError, RefusedError
from bedside.core.securesum.aggregator import CohortPhase
from bedside.core.securesum.merkle import set_root
from bedside.core.securesum.messages import (
    open_answer,
    open_closed,
    open_opening,
    open_refusal,
    open_vote,
    words_digest,
)
from bedside.core.securesum.trustee import leaves_of
from bedside.core.signing import VerifiedCredential, digest
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.round_pb2 import Answer, Closed, Opening, Refusal, Vote
from bedside.proto.v1.trustee_pb2 import HeaderSet


class TrusteeWords:
    """Takes the words of trustees."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def opening(self, signed: Signed, trustee: VerifiedCredential) -> None:
        """Take an opening, also of a cohort that was given up meanwhile: its trustee holds a key and must be told.

        Raises TrustError, MalformedError, ProtocolError as `open_opening`, or `too-late`.
        """
        claimed = claim(Opening, signed)
        state = self._round(claimed.plan_digest, claimed.cohort, trustee)
        open_opening(signed, trustee, state.plan, claimed.cohort)
        self._keep(state, claimed.cohort, "opening", signed, trustee, CohortPhase.OPENING, CohortPhase.LEFT_OUT)

    def vote(self, signed: Signed, trustee: VerifiedCredential) -> None:
        """Take a vote for the sealed set; raises as `open_vote`, `votes-differ` or `too-late`."""
        claimed = claim(Vote, signed)
        state = self._round(claimed.plan_digest, claimed.cohort, trustee)
        vote = open_vote(signed, trustee, state.plan, claimed.cohort)
        if vote.set_root != self.root(state, claimed.cohort):
            raise ProtocolError("votes-differ", "this vote is for another set than the one that was sealed")
        self._keep(state, claimed.cohort, "vote", signed, trustee, CohortPhase.SEALED)

    def check_answer(self, signed: Signed, trustee: VerifiedCredential) -> Answer:
        """Verify an answer before its words are read.

        Raises:
            ProtocolError: `other-votes`, `other-noise`, `too-late` or `another-word`.
            TrustError, MalformedError: as `open_answer`.
        """
        claimed = claim(Answer, signed)
        state = self._round(claimed.plan_digest, claimed.cohort, trustee)
        answer = open_answer(signed, trustee, state.plan, claimed.cohort)
        self._check_noise(state, answer, trustee)
        votes = state.signed_words(claimed.cohort, "vote")
        if answer.set_root != self.root(state, claimed.cohort) or answer.votes_digest != words_digest(votes):
            raise ProtocolError("other-votes", "this answer is for other votes or another set")
        _check_wanted(state, _word(state, answer.cohort, "answer", signed, trustee), CohortPhase.REVEALING)
        return answer

    async def answer(self, signed: Signed, words: Incoming, trustee: VerifiedCredential) -> None:
        """Take an answer with its words, which become a blob only when they are those that it signed.

        Raises:
            MalformedError: `answer-digest`.
            ProtocolError: `too-late`; otherwise as `check_answer`.
        """
        name = await asyncio.to_thread(words.finish)
        answer = self.check_answer(signed, trustee)
        if name != answer.mask_sum_digest or words.received_bytes != answer.mask_sum_bytes:
            raise MalformedError("answer-digest", "the words are not those that the answer signed")
        words.adopt()
        state = self._round(answer.plan_digest, answer.cohort, trustee)
        self._keep(state, answer.cohort, "answer", signed, trustee, CohortPhase.REVEALING)

    def closed(self, signed: Signed, trustee: VerifiedCredential) -> Closed:
        """Take a closing, in any phase; raises as `open_closed`."""
        claimed = claim(Closed, signed)
        state = self._round(claimed.plan_digest, claimed.cohort, trustee)
        closed = open_closed(signed, trustee, state.plan, claimed.cohort)
        self._keep(state, claimed.cohort, "closed", signed, trustee, *CohortPhase)
        return closed

    def refusal(self, signed: Signed, trustee: VerifiedCredential) -> Refusal:
        """Take a trustee's reason; it ends its cohort unless that has ended. Raises as `open_refusal`."""
        claimed = claim(Refusal, signed)
        state = self._round(claimed.plan_digest, claimed.cohort, trustee)
        refusal = open_refusal(signed, trustee, state.plan, claimed.cohort)
        row = RefusalRow(
            plan_digest=state.plan.digest,
            credential_digest=trustee.digest,
            cohort=claimed.cohort,
            code=refusal.code,
            sentence=refusal.sentence,
            signed=signed.SerializeToString(deterministic=True),
        )
        said = digest(signed.payload)
        if self._parts.store.run_tx("trustee-refuses", lambda tx: contributions.put_trustee_refusal(tx, row, said)):
            self._parts.meters.refused("trustee", refusal.code)
        self._parts.signals.rounds.bump()
        return refusal

    def root(self, state: RoundState, cohort: int) -> bytes:
        """Root of a sealed set.

        Raises:
            ProtocolError: `not-sealed`.
        """
        return set_root(leaves_of(read_header_set(self._parts, state, cohort)))

    @staticmethod
    def _check_noise(state: RoundState, answer: Answer, trustee: VerifiedCredential) -> None:
        promised = state.opening(answer.cohort, trustee.digest)
        if promised is None or answer.noise_multiplier_e6 != promised.noise_multiplier_e6:
            raise ProtocolError("other-noise", "this answer has another noise multiplier than its trustee's opening")

    def _round(self, plan_digest: bytes, cohort: int, trustee: VerifiedCredential) -> RoundState:
        state = self._parts.store.run_tx("find-round", find_round(plan_digest, self._parts.sign_pk))
        if trustee.digest not in state.trustees(cohort):
            raise RefusedError("not-a-trustee", f"{trustee.credential.subject} is not a trustee of cohort {cohort}")
        return state

    def _keep(
        self,
        state: RoundState,
        cohort: int,
        kind: str,
        signed: Signed,
        trustee: VerifiedCredential,
        *phases: CohortPhase,
    ) -> None:
        row = _word(state, cohort, kind, signed, trustee)
        if not _check_wanted(state, row, *phases):
            return
        known = self._parts.store.run_tx(f"keep-{kind}", lambda tx: contributions.put_word(tx, row))
        self._parts.signals.rounds.bump()
        if known.digest != row.digest:
            raise _another(row)


def _word(state: RoundState, cohort: int, kind: str, signed: Signed, trustee: VerifiedCredential) -> WordRow:
    return WordRow(
        plan_digest=state.plan.digest,
        cohort=cohort,
        credential_digest=trustee.digest,
        kind=kind,
        digest=digest(signed.payload),
        signed=signed.SerializeToString(deterministic=True),
    )


def _check_wanted(state: RoundState, row: WordRow, *phases: CohortPhase) -> bool:
    """Whether a word is news; raises ProtocolError `too-late` or `another-word`."""
    known = state.word(row.cohort, row.kind, row.credential_digest)
    phase = phase_of(state.cohort(row.cohort))
    if known is None and phase not in phases:
        raise ProtocolError("too-late", f"this cohort takes no {row.kind} in its phase {phase.value}")
    if known is not None and known.digest != row.digest:
        raise _another(row)
    return known is None


def _another(row: WordRow) -> ProtocolError:
    return ProtocolError("another-word", f"another {row.kind} of this trustee for this cohort is known")


def read_header_set(parts: Parts, state: RoundState, cohort: int) -> HeaderSet:
    """The sealed set of a cohort.

    Raises:
        ProtocolError: `not-sealed`.
    """
    name = state.cohort(cohort).headers_digest
    if name is None:
        raise ProtocolError("not-sealed", "the set of this cohort is not fixed yet")
    return HeaderSet.FromString(parts.blobs.read(name))
