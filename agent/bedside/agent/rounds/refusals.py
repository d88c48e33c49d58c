"""Plans that this device does not take: remembered, signed, and told to the coordinator until it has heard.

Invariants:
    * A refusal is durable before it is sent; what is remembered steps only to a plan that was signed.
    * What is signed tells a judgement, or the fixed sentence of a code (`told.py`); the journal keeps the whole reason,
      and the code that is not told.
"""

from __future__ import annotations

import logging

from bedside.agent.rounds.journal import Contribution, Journal
from bedside.agent.rounds.link import CoordinatorLink
from bedside.agent.rounds.offer import SignedPlan
from bedside.agent.rounds.told import told_as, told_code, told_judgement
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError, MalformedError, ProtocolError, RefusedError
from bedside.core.securesum.device import ContributionState
from bedside.core.signing import digest, parse_strict, sign_message
from bedside.core.signing.envelope import SUITE
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import Offer
from bedside.proto.v1.plan_pb2 import Plan
from bedside.proto.v1.round_pb2 import Refusal
from bedside.service.identity import Identity, SequenceNumbers
from bedside.service.logs import event
from bedside.service.text import bounded

_LOGGER = logging.getLogger(__name__)


class Refusals:
    """Says no for one device."""

    def __init__(self, identity: Identity, journal: Journal, sequence: SequenceNumbers, clock: Clock) -> None:
        self._identity = identity
        self._journal = journal
        self._sequence = sequence
        self._clock = clock

    def refuse(self, offer: Offer, signed_plan: SignedPlan | None, error: BedsideError) -> None:
        """Do not take an offer; `signed_plan` is None where not even its plan could be verified."""
        plan = signed_plan.plan.plan if signed_plan is not None else Plan()
        declined = _declined(digest(offer.plan.payload), plan.task, plan.round_number, error)
        self._remember(declined, offer.cohort, told_judgement(error), signed_plan)
        event(_LOGGER, "plan-declined", level=logging.WARNING, error=error)

    def decline(self, contribution: Contribution, error: BedsideError, *, judged: bool = False) -> None:
        """Give a plan up that was taken; `judged` when the reason is the plan itself, and no sample was looked at."""
        declined = _declined(contribution.plan_digest, contribution.task, contribution.round_number, error)
        told = told_judgement(error) if judged else told_code(error.code)
        self._remember(declined, Offer.FromString(contribution.offer).cohort, told, None)
        event(_LOGGER, "plan-declined", level=logging.WARNING, error=error)

    def withdraw(self, contribution: Contribution, error: BedsideError) -> None:
        """Say that an upload which was committed will not come, because the site's rules changed; it may go then."""
        cohort = Offer.FromString(contribution.offer).cohort
        declined = _declined(contribution.plan_digest, contribution.task, contribution.round_number, error)
        self._journal.owe_refusal(contribution.plan_digest, self._sign(declined, cohort, told_judgement(error)))
        event(_LOGGER, "upload-withdrawn", level=logging.WARNING, error=error)

    async def send(self, link: CoordinatorLink) -> None:
        """Tell the coordinator what it has not heard yet.

        Raises:
            UnavailableError: the link broke; nothing is lost.
        """
        for plan_digest, signed in self._journal.unsent_refusals():
            try:
                await link.decline(parse_strict(Signed, signed))
            except (ProtocolError, RefusedError, MalformedError) as error:
                event(_LOGGER, "refusal-not-taken", level=logging.WARNING, error=error)
            self._journal.refusal_sent(plan_digest)

    def _remember(self, declined: Contribution, cohort: int, told: str, signed_plan: SignedPlan | None) -> None:
        seen = signed_plan.seen if signed_plan is not None else None
        self._journal.refuse(declined, self._sign(declined, cohort, told), seen, now_ns=self._clock.now_ns())

    def _sign(self, declined: Contribution, cohort: int, told: str) -> bytes:
        """The serialised Signed of kind `refusal`."""
        refusal = Refusal(
            suite=SUITE,
            plan_digest=declined.plan_digest,
            cohort=cohort,
            credential_digest=self._identity.require_credential().digest,
            code=told_as(declined.code),
            sentence=bounded(told),
            sequence=self._sequence.next(),
        )
        signed = sign_message("refusal", refusal, self._identity.signing_key)
        return signed.SerializeToString(deterministic=True)


def _declined(plan_digest: bytes, task: str, round_number: int, error: BedsideError) -> Contribution:
    """What the journal keeps: the whole reason."""
    sentence = bounded(error.sentence)
    return Contribution(plan_digest, task, round_number, ContributionState.DECLINED, b"", error.code, sentence)
