"""How a round ended for this device: its own trustee's signed word, believed only with its proof.

A proof that the answered set is without this device, and `burned` by a trustee that held its key without a break, free
the delta. Any other end counts as used.

Source: DESIGN section 5, step 7.
"""

from __future__ import annotations

from typing import NamedTuple

from bedside.agent.rounds.memory import Seen
from bedside.agent.rounds.offer import Standing
from bedside.core.errors import TrustError
from bedside.core.securesum.device import ContributionInput
from bedside.core.securesum.merkle import check_membership
from bedside.core.securesum.messages import open_answer, open_closed
from bedside.core.securesum.plans import CheckedPlan, open_plan
from bedside.core.signing import digest
from bedside.core.signing.trust import VerifiedCredential, open_credential
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import Offer
from bedside.proto.v1.identity_pb2 import Federation
from bedside.proto.v1.round_pb2 import CLOSE_REASON_BURNED, CloseReason, Opening, Receipt


class Outcome(NamedTuple):
    """What a verified receipt means.

    Attributes:
        event: for the contribution's machine.
        code: stable; empty when it was counted.
        sentence: for the operator.
        seen: what is remembered from now on: the receipt is a link of the own trustee's chain.
    """

    event: ContributionInput
    code: str
    sentence: str
    seen: Seen


def check_receipt(
    receipt: Receipt, offer: Offer, standing: Standing, seen: Seen, *, header_digest: bytes | None
) -> Outcome:
    """Verify a receipt against the offer that was taken.

    Args:
        receipt: the own trustee's word.
        offer: the stored offer of that plan; it was verified when it was taken.
        standing: who we are.
        seen: what is remembered.
        header_digest: of the header that was committed; None when there is none.

    Raises:
        TrustError: `bad-signature`, `bad-membership-proof`, `other-header`, `no-own-trustee` or `chain-fork`.
        MalformedError, ProtocolError: when it is not well-formed, or for another plan.
    """
    plan = _stored_plan(offer)
    cohort = plan.cohort_of(standing.site)
    trustee = _own_trustee(offer, plan, cohort, standing)
    if receipt.WhichOneof("word") == "closed":
        return _closed(receipt.closed, trustee, plan, cohort, seen, boot_id=_boot_of(offer, trustee))
    answer = open_answer(receipt.answer, trustee, plan, cohort)
    seen = _step(seen, trustee, receipt.answer, answer.chain.index)
    counted = check_membership(answer.set_root, receipt.membership, standing.credential.digest)
    if counted is None:
        return Outcome(ContributionInput.RECEIPT_OUT, "not-in-set", "the round was opened without this device", seen)
    if counted != header_digest:
        raise TrustError("other-header", "the answered set holds a header of this device that it never committed")
    return Outcome(ContributionInput.RECEIPT_IN, "", "counted in the sum that its trustees opened", seen)


def _closed(
    signed: Signed, trustee: VerifiedCredential, plan: CheckedPlan, cohort: int, seen: Seen, *, boot_id: bytes
) -> Outcome:
    """`burned` frees under the boot of the opening only: whoever signs it under another has not held the key since."""
    closed = open_closed(signed, trustee, plan, cohort)
    reason = CloseReason.Name(closed.reason).removeprefix("CLOSE_REASON_").lower()
    sentence = f"the site's trustee closed the round without an answer ({reason})"
    seen = _step(seen, trustee, signed, closed.chain.index)
    burned = closed.reason == CLOSE_REASON_BURNED and closed.chain.boot_id == boot_id
    event = ContributionInput.BURNED if burned else ContributionInput.CLOSED
    return Outcome(event, f"closed-{reason}", sentence, seen)


def _step(seen: Seen, trustee: VerifiedCredential, signed: Signed, index: int) -> Seen:
    """Receipts may arrive after newer openings: an older link is fine here, a newer one is remembered."""
    point = seen.chains.get(trustee.credential.subject)
    if point is not None and index < point.index:
        return seen
    return seen.with_link(trustee.credential.subject, index, digest(signed.payload))


def _stored_plan(offer: Offer) -> CheckedPlan:
    claimed = Federation()
    claimed.ParseFromString(offer.federation.payload)
    return open_plan(offer.plan, claimed.coordinator.sign_pk)


def _boot_of(offer: Offer, trustee: VerifiedCredential) -> bytes:
    """The boot id of the own trustee's opening; the offer was verified when it was taken."""
    (entry,) = [one for one in offer.openings if digest(one.credential.payload) == trustee.digest]
    return Opening.FromString(entry.opening.payload).chain.boot_id


def _own_trustee(offer: Offer, plan: CheckedPlan, cohort: int, standing: Standing) -> VerifiedCredential:
    named = {trustee.credential_digest for trustee in plan.cohort(cohort).trustees if trustee.site == standing.site}
    for entry in offer.openings:
        if digest(entry.credential.payload) in named:
            return open_credential(entry.credential, standing.authority_pk)
    raise TrustError("no-own-trustee", f"the offer holds no trustee of site {standing.site}")
