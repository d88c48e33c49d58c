"""Openings, headers, votes, answers and closings: each verified under its sender's credential and bounded.

Every function takes a credential that `Trust` has verified, checks the signature, the strict encoding and that the
message speaks of this plan and cohort, and returns what later steps may rely on.

Source: DESIGN section 5, steps 2 to 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from google.protobuf.message import Message

from bedside.core.errors import MalformedError, ProtocolError, TrustError
from bedside.core.limits import MAX_NOISE_MULTIPLIER, MAX_TEXT_CHARS
from bedside.core.privacy.gaussian import ONE_E6
from bedside.core.securesum.keys import (
    MLKEM_CIPHERTEXT_BYTES,
    MLKEM_PK_BYTES,
    TAG_BYTES,
    X25519_BYTES,
    RoundPublic,
)
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.securesum.ring import packed_bytes
from bedside.core.signing.envelope import DIGEST_BYTES, SUITE, digest, open_signed, parse_strict
from bedside.core.signing.trust import Trust, VerifiedCredential
from bedside.proto.v1 import round_pb2
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import OpeningEntry
from bedside.proto.v1.identity_pb2 import Role

BOOT_ID_BYTES: Final = 16


class _RoundMessage(Protocol):
    """What all messages of a round have in common."""

    suite: int
    plan_digest: bytes
    cohort: int
    credential_digest: bytes


Sent = TypeVar("Sent", bound=Message)


@dataclass(frozen=True, slots=True)
class CheckedOpening:
    """An opening by a trustee that the plan names."""

    digest: bytes
    opening: round_pb2.Opening
    credential: VerifiedCredential
    signed: Signed

    @property
    def public(self) -> RoundPublic:
        """The round key."""
        return RoundPublic(self.opening.x25519_pk, self.opening.mlkem_pk)


@dataclass(frozen=True, slots=True)
class CheckedHeader:
    """A header by a device of one of the cohort's sites."""

    digest: bytes
    header: round_pb2.Header
    credential: VerifiedCredential
    signed: Signed


def open_opening(signed: Signed, credential: VerifiedCredential, plan: CheckedPlan, cohort: int) -> CheckedOpening:
    """Verify one trustee's opening.

    Raises:
        TrustError, MalformedError, ProtocolError: see `_open`; `not-a-trustee` when the plan does not name it;
            `noise-too-small` when it promises less noise than the plan asks for.
    """
    opening = _open(round_pb2.Opening, "opening", signed, credential, plan, cohort)
    if credential.digest not in [trustee.credential_digest for trustee in plan.cohort(cohort).trustees]:
        raise TrustError("not-a-trustee", f"{credential.credential.subject} is not a trustee of cohort {cohort}")
    if (opening.site, opening.trustee) != (credential.site, credential.credential.subject):
        raise TrustError("not-a-trustee", "an opening names another site or trustee than its credential")
    lengths_hold = len(opening.x25519_pk) == X25519_BYTES and len(opening.mlkem_pk) == MLKEM_PK_BYTES
    if not lengths_hold or opening.min_trusted < 1:
        raise MalformedError("bad-opening", "an opening's keys or promise are out of bounds")
    _check_noise(opening, plan)
    _check_chain(opening.chain)
    return CheckedOpening(digest(signed.payload), opening, credential, signed)


def open_openings(
    entries: Sequence[OpeningEntry], plan: CheckedPlan, cohort: int, trust: Trust, *, now_s: int | None = None
) -> list[CheckedOpening]:
    """Verify the openings of all the cohort's trustees, in the plan's order.

    Raises:
        ProtocolError: `openings-incomplete`, when one is missing, repeated or out of order; `ring-overflow`, when the
            noise that they promise together does not fit the ring.
        TrustError, MalformedError: as `open_opening` and `Trust.credential`.
    """
    wanted = [trustee.credential_digest for trustee in plan.cohort(cohort).trustees]
    if [digest(entry.credential.payload) for entry in entries] != wanted:
        raise ProtocolError("openings-incomplete", "the openings are not those of the cohort's trustees")
    openings = []
    for entry in entries:
        credential = trust.credential(entry.credential, Role.ROLE_TRUSTEE, now_s=now_s)
        openings.append(open_opening(entry.opening, credential, plan, cohort))
    keys = {opening.opening.x25519_pk for opening in openings} | {o.opening.mlkem_pk for o in openings}
    if len(keys) != 2 * len(openings):
        raise TrustError("repeated-round-key", "two trustees published the same round key")
    plan.check_ring(opening.opening.noise_multiplier_e6 for opening in openings)
    return openings


def openings_digest(openings: Sequence[CheckedOpening]) -> bytes:
    """BLAKE2b-256 over the openings' digests in the plan's order."""
    return digest(b"".join(opening.digest for opening in openings))


def open_header(
    signed: Signed, credential: VerifiedCredential, plan: CheckedPlan, cohort: int, all_openings_digest: bytes
) -> CheckedHeader:
    """Verify one device's header.

    Raises:
        TrustError, MalformedError, ProtocolError: see `_open`; `other-openings`, `wrong-site` or `bad-header`.
    """
    header = _open(round_pb2.Header, "header", signed, credential, plan, cohort)
    if header.site != credential.site or header.site not in plan.cohort(cohort).sites:
        raise TrustError(
            "wrong-site", f"a header names site {header.site[:64]!r}: not the device's, or not in the cohort"
        )
    if header.openings_digest != all_openings_digest:
        raise ProtocolError("other-openings", "a header was made for other openings")
    count = len(plan.cohort(cohort).trustees)
    ciphertexts_hold = [len(c) for c in header.mlkem_ciphertexts] == [MLKEM_CIPHERTEXT_BYTES] * count
    tags_hold = [len(tag) for tag in header.tags] == [TAG_BYTES] * count
    digests_hold = len(header.x25519_pk) == X25519_BYTES and len(header.upload_digest) == DIGEST_BYTES
    size_holds = header.upload_bytes == packed_bytes(plan.vector_words, plan.plan.word_bits)
    if not (ciphertexts_hold and tags_hold and digests_hold and size_holds) or header.profile:
        raise MalformedError("bad-header", "a header's keys, tags or length do not fit the plan")
    return CheckedHeader(digest(signed.payload), header, credential, signed)


def open_vote(signed: Signed, credential: VerifiedCredential, plan: CheckedPlan, cohort: int) -> round_pb2.Vote:
    """Verify one trustee's vote; raises as `_open`, and `bad-vote`."""
    vote = _open(round_pb2.Vote, "vote", signed, credential, plan, cohort)
    if len(vote.set_root) != DIGEST_BYTES or not 0 < vote.set_size <= plan.plan.max_contributors:
        raise MalformedError("bad-vote", "a vote's root or size is out of bounds")
    _check_chain(vote.chain)
    return vote


def open_answer(signed: Signed, credential: VerifiedCredential, plan: CheckedPlan, cohort: int) -> round_pb2.Answer:
    """Verify one trustee's answer (not its words); raises as `_open`, and `bad-answer`."""
    answer = _open(round_pb2.Answer, "answer", signed, credential, plan, cohort)
    lengths = {len(answer.set_root), len(answer.votes_digest), len(answer.mask_sum_digest)}
    size_holds = answer.mask_sum_bytes == packed_bytes(plan.vector_words, plan.plan.word_bits)
    if lengths != {DIGEST_BYTES} or not size_holds:
        raise MalformedError("bad-answer", "an answer's digests or length do not fit the plan")
    _check_chain(answer.chain)
    return answer


def open_closed(signed: Signed, credential: VerifiedCredential, plan: CheckedPlan, cohort: int) -> round_pb2.Closed:
    """Verify one trustee's closing; raises as `_open`, and `bad-closed`."""
    closed = _open(round_pb2.Closed, "closed", signed, credential, plan, cohort)
    if closed.reason == round_pb2.CLOSE_REASON_UNSPECIFIED:
        raise MalformedError("bad-closed", "a closing without a reason")
    _check_chain(closed.chain)
    return closed


def open_refusal(signed: Signed, credential: VerifiedCredential, plan: CheckedPlan, cohort: int) -> round_pb2.Refusal:
    """Verify a refusal of a device or trustee; raises as `_open`, and `bad-refusal`."""
    refusal = _open(round_pb2.Refusal, "refusal", signed, credential, plan, cohort)
    if not refusal.code or len(refusal.code) > MAX_TEXT_CHARS or len(refusal.sentence) > MAX_TEXT_CHARS:
        raise MalformedError("bad-refusal", "a refusal's code or sentence is missing or too long")
    return refusal


def words_digest(signed: Sequence[Signed]) -> bytes:
    """BLAKE2b-256 over the digests of votes, or of answers, in the plan's order of trustees."""
    return digest(b"".join(digest(word.payload) for word in signed))


def _open(
    message_type: type[Sent],
    kind: str,
    signed: Signed,
    credential: VerifiedCredential,
    plan: CheckedPlan,
    cohort: int,
) -> Sent:
    """Verify signature, encoding, suite, H, cohort and sender.

    Raises:
        TrustError: `bad-signature`, `bad-suite` or `wrong-sender`.
        MalformedError: `bad-message`.
        ProtocolError: `other-plan` or `other-cohort`.
    """
    message = parse_strict(message_type, open_signed(kind, signed, credential.sign_pk))
    common: _RoundMessage = message  # type: ignore[assignment]  # every message of round.proto has these four fields
    if common.suite != SUITE:
        raise TrustError("bad-suite", f"a {kind} uses suite {common.suite}; this version knows {SUITE} only")
    if common.plan_digest != plan.digest:
        raise ProtocolError("other-plan", f"this {kind} is for another plan")
    if common.cohort != cohort:
        raise ProtocolError("other-cohort", f"this {kind} is for cohort {common.cohort}, not {cohort}")
    if common.credential_digest != credential.digest:
        raise TrustError("wrong-sender", f"this {kind} names another credential than its sender's")
    return message


def _check_noise(opening: round_pb2.Opening, plan: CheckedPlan) -> None:
    promised_e6 = opening.noise_multiplier_e6
    if promised_e6 > MAX_NOISE_MULTIPLIER * ONE_E6:
        raise MalformedError("bad-opening", "an opening's noise multiplier is out of bounds")
    if promised_e6 < plan.noise_multiplier_e6:
        raise ProtocolError(
            "noise-too-small",
            f"the trustee of site {opening.site} promises a noise multiplier of {promised_e6 / ONE_E6:g};"
            f" the plan asks for {plan.noise_multiplier_e6 / ONE_E6:g}",
        )


def _check_chain(chain: round_pb2.Chain) -> None:
    first = chain.index == 1
    links_hold = len(chain.previous_digest) == (0 if first else DIGEST_BYTES)
    ledger_holds = len(chain.ledger_head) in (0, DIGEST_BYTES)
    if chain.index < 1 or not links_hold or not ledger_holds or len(chain.boot_id) != BOOT_ID_BYTES:
        raise MalformedError("bad-chain", "a trustee's chain link is not well-formed")
