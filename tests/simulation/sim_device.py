"""A device's shell in memory: its journal survives, and is written before anything is sent.

A delta that the own trustee gave back is encoded again for the next plan: it keeps its bucket, so that counting it in
two sums would show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from sim_network import Party
from sim_stage import DEVICES, Bytes, Stage

from bedside.agent.rounds.memory import Seen
from bedside.core.errors import TrustError
from bedside.core.securesum import device as rules
from bedside.core.securesum.device import ContributionInput, ContributionState
from bedside.core.securesum.merkle import check_membership
from bedside.core.securesum.messages import CheckedOpening, open_answer, open_closed, open_openings
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.securesum.ring import word_dtype
from bedside.core.signing.envelope import digest, sign_message
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import OpeningEntry
from bedside.proto.v1.round_pb2 import CLOSE_REASON_BURNED, Receipt

_S, _I = ContributionState, ContributionInput
WAITING = (_S.TRAINING, _S.READY, _S.ACCEPTED, _S.AWAITING)
_MAX_AGE_ROUNDS = 1


@dataclass(slots=True)
class Contribution:
    plan: CheckedPlan
    cohort: int
    openings: list[OpeningEntry]
    state: ContributionState
    bucket: int
    header: Signed | None = None
    packed: bytes = b""


@dataclass(slots=True)
class Journal:
    sequence: int = 0
    seen: Seen = field(default_factory=Seen)
    contributions: dict[bytes, Contribution] = field(default_factory=dict)


class SimDevice(Party):
    """One device; its vector of round r has a one in bucket (r - 1) * DEVICES + its own number."""

    def __init__(self, stage: Stage, number: int, seed: int, network, watch: Callable[..., None]) -> None:
        super().__init__(f"device {number}", network)
        self.stage, self.number, self._watch = stage, number, watch
        self.party = stage.world.devices[number]
        self.site = self.party.credential.site
        self._entropy = Bytes(f"device/{number}/{seed}")
        self.journal = Journal()

    def poll(self) -> None:
        known = [plan_digest for plan_digest, made in self.journal.contributions.items() if made.state in WAITING]
        newest = next(reversed(self.journal.contributions), b"")
        self.send("coordinator", "offer_wanted", (self.number, newest, known))
        self._upload_again()

    def recover(self) -> None:
        """What was being trained starts again: nothing of it was sent."""
        for made in self.journal.contributions.values():
            if made.state is _S.TRAINING:
                self._move(made, _I.START)
                self._train(made)

    def on_offer(self, body: tuple) -> None:
        plan, cohort, openings, receipts = body
        for receipt in receipts:
            self._take_receipt(receipt)
        if plan is not None and plan.digest not in self.journal.contributions:
            self._take_plan(plan, cohort, openings)
        self._upload_again()

    def on_accepted(self, plan_digest: bytes) -> None:
        made = self.journal.contributions[plan_digest]
        if made.state in (_S.READY, _S.ACCEPTED):
            self._move(made, _I.ACKNOWLEDGED)

    def on_not_taken(self, told: tuple[bytes, str]) -> None:
        """The coordinator's word frees nothing: the own trustee will tell how it ended."""
        plan_digest, code = told
        made = self.journal.contributions[plan_digest]
        if code == "round-closed" and made.state is _S.READY:
            self._move(made, _I.TURNED_AWAY)

    def _take_plan(self, plan: CheckedPlan, cohort: int, entries: list[OpeningEntry]) -> None:
        openings = open_openings(entries, plan, cohort, self.stage.trust)
        own = next(opening for opening in openings if opening.credential.site == self.site)
        seen = self.journal.seen.with_plan(plan.plan, plan.digest)
        seen = seen.with_chain(own.opening.trustee, own.opening.chain, own.digest)
        made = Contribution(plan, cohort, entries, _S.OFFERED, (plan.plan.round_number - 1) * DEVICES + self.number)
        self.point()
        self._move(made, _I.START)
        self.journal.seen = seen
        self.journal.contributions[plan.digest] = made
        self._train(made, openings)

    def _train(self, made: Contribution, openings: Sequence[CheckedOpening] | None = None) -> None:
        self.point()
        self.journal.sequence += 1
        self.point()
        plan = made.plan
        freed = next((other for other in self.journal.contributions.values() if other.state is _S.FREED), None)
        bucket = made.bucket
        if freed is not None and self._still_fits(freed, made):
            bucket = freed.bucket
        words = np.zeros(plan.vector_words, word_dtype(plan.plan.word_bits))
        words[bucket] = 1
        contribution = rules.contribute(
            plan,
            made.cohort,
            openings or open_openings(made.openings, plan, made.cohort, self.stage.trust),
            self.party.credential,
            words,
            device_secret=self.party.secret,
            entropy=self._entropy,
            sequence=self.journal.sequence,
        )
        header = sign_message("header", contribution.header, self.party.key)
        self.point()
        self._move(made, _I.TRAINED)
        made.header, made.packed, made.bucket = header, contribution.packed, bucket
        if freed is not None:
            self._move(freed, _I.REUSED if freed.bucket == bucket else _I.SUPERSEDED)
        self._watch("committed", self.number, plan.digest, header)

    @staticmethod
    def _still_fits(freed: Contribution, made: Contribution) -> bool:
        return made.plan.plan.round_number - freed.plan.plan.round_number <= _MAX_AGE_ROUNDS

    def _upload_again(self) -> None:
        for made in self.journal.contributions.values():
            if made.state is _S.READY:
                self.send("coordinator", "upload", (self.number, made.header, made.packed))

    def _take_receipt(self, receipt: Receipt) -> None:
        made = self.journal.contributions[receipt.plan_digest]
        trustee = self.stage.world.sites[self.site].trustee.credential
        if receipt.WhichOneof("word") == "closed":
            closed = open_closed(receipt.closed, trustee, made.plan, made.cohort)
            event = _I.BURNED if closed.reason == CLOSE_REASON_BURNED else _I.CLOSED
        else:
            answer = open_answer(receipt.answer, trustee, made.plan, made.cohort)
            counted = check_membership(answer.set_root, receipt.membership, self.party.credential.digest)
            if counted is not None and (made.header is None or counted != digest(made.header.payload)):
                raise TrustError("other-header", "the set holds a header that this device never committed")
            event = _I.RECEIPT_OUT if counted is None else _I.RECEIPT_IN
        if not rules.CONTRIBUTION.accepts(made.state, event):
            self._watch("contradicted", self.number, made.state, event)
            return
        self.point()
        self._move(made, event)

    def _move(self, made: Contribution, event: ContributionInput) -> None:
        self._watch("transition", made.state, event)
        made.state = rules.advance(made.state, event)
