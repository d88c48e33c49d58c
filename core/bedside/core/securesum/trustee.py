"""The trustee's part of a round: judge one set, lock it, answer it once.

Rules enforced here (each with its code; the durable half of T1, T2 and T6 is the shell's, by the table below):
    * T1 one set per (plan, cohort): `TrusteeState` has no way from a vote to another root; a device stands once in a
      set; all votes are on one root.
    * T2 a lost key is `lost`, never `burned`.
    * T3 own devices in the set are none, or the set holds at least `min_trusted` devices of `trusted_sites`.
    * T5 the answer carries the full noise that the opening promised, the same whenever it is made for that set.
    * T6 votes and answers link to the chain (the shell supplies the link).

Source: DESIGN section 5, steps 2, 4 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from hmac import compare_digest
from typing import Final

import numpy as np

from bedside.core.errors import ProtocolError, RefusedError, TrustError
from bedside.core.privacy.noise import add_noise, noise_key
from bedside.core.securesum.keys import MaskContext, RoundOpener, RoundSecret
from bedside.core.securesum.machine import Machine
from bedside.core.securesum.masks import MaskExpander
from bedside.core.securesum.merkle import Leaf, set_root
from bedside.core.securesum.messages import (
    CheckedHeader,
    CheckedOpening,
    open_header,
    open_vote,
    openings_digest,
    words_digest,
)
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.securesum.ring import pack, reduce_in_place, word_dtype
from bedside.core.signing.envelope import digest
from bedside.core.signing.trust import Trust
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import Role
from bedside.proto.v1.trustee_pb2 import HeaderSet


class TrusteeState(Enum):
    """Where a trustee stands with one (plan, cohort)."""

    ASKED = "asked"
    REFUSED = "refused"
    OPEN = "open"
    VOTED = "voted"
    ANSWERED = "answered"
    BURNED = "burned"
    LOST = "lost"


class TrusteeInput(Enum):
    """What can happen."""

    REFUSE = "refuse"
    OPEN = "open"
    VOTE = "vote"
    SAME_SET = "same-set"
    ANSWER = "answer"
    CLOSE = "close"
    KEY_LOST = "key-lost"


_S, _I = TrusteeState, TrusteeInput
TRUSTEE: Final = Machine(
    "trustee",
    {
        (_S.ASKED, _I.REFUSE): _S.REFUSED,
        (_S.ASKED, _I.OPEN): _S.OPEN,
        (_S.REFUSED, _I.CLOSE): _S.REFUSED,
        (_S.OPEN, _I.VOTE): _S.VOTED,
        (_S.OPEN, _I.CLOSE): _S.BURNED,
        (_S.OPEN, _I.KEY_LOST): _S.LOST,
        # A vote is a lock: the same set again sends the stored vote, another set has no row here.
        (_S.VOTED, _I.SAME_SET): _S.VOTED,
        (_S.VOTED, _I.ANSWER): _S.ANSWERED,
        (_S.VOTED, _I.CLOSE): _S.BURNED,
        (_S.VOTED, _I.KEY_LOST): _S.LOST,
        # The answer may be sent again; there is never another, and no closing after it.
        (_S.ANSWERED, _I.SAME_SET): _S.ANSWERED,
        (_S.ANSWERED, _I.ANSWER): _S.ANSWERED,
        (_S.BURNED, _I.CLOSE): _S.BURNED,
        (_S.LOST, _I.CLOSE): _S.LOST,
        (_S.LOST, _I.KEY_LOST): _S.LOST,
    },
)
"""A trustee's machine for one (plan, cohort)."""


def advance(state: TrusteeState, event: TrusteeInput) -> TrusteeState:
    """The next state; raises ProtocolError `bad-transition`."""
    return TRUSTEE.advance(state, event)


@dataclass(frozen=True, slots=True, repr=False)
class Member:
    """A header of the set, with the mask key that it shares with this trustee."""

    header: CheckedHeader
    mask_key: bytes


@dataclass(frozen=True, slots=True)
class CheckedSet:
    """A set that this trustee may vote for.

    Attributes:
        root: RFC 6962 root.
        members: ordered by credential digest.
        own_size: devices of this trustee's site.
        trusted_size: devices of the sites that its policy trusts (its own among them).
    """

    root: bytes
    members: tuple[Member, ...]
    own_size: int
    trusted_size: int


def leaves_of(headers: HeaderSet) -> list[Leaf]:
    """The set's leaves, as they stand; `set_root` checks their order."""
    return [Leaf(digest(entry.credential.payload), digest(entry.header.payload)) for entry in headers.entries]


def judge_set(
    plan: CheckedPlan,
    cohort: int,
    openings: Sequence[CheckedOpening],
    headers: HeaderSet,
    trust: Trust,
    own: CheckedOpening,
    secret: RoundSecret,
    *,
    now_s: int | None = None,
) -> CheckedSet:
    """Check everything that a vote promises.

    Args:
        plan: the plan that was opened.
        cohort: which of its cohorts.
        openings: of all the cohort's trustees, in the plan's order; `own` among them.
        headers: the accepted set, ordered by credential digest.
        trust: federation and rosters, none older than the own opening names.
        own: this trustee's opening.
        secret: this trustee's round key.
        now_s: this machine's clock, for expiry.

    Raises:
        RefusedError: `set-too-small`, `set-too-large` or `min-trusted`.
        TrustError: `not-on-roster`, `bad-signature`, `bad-tag`, `not-among-openings`, `repeated-ephemeral`, ...
        MalformedError: `set-order`, `bad-header`, ...
        ProtocolError: `other-plan`, `other-cohort`, `other-openings`.
    """
    _check_size(plan, len(headers.entries))
    root = set_root(leaves_of(headers))
    opener = RoundOpener(secret)
    position = _position(own, openings)
    all_openings = openings_digest(openings)
    members = []
    for entry in headers.entries:
        credential = trust.credential(entry.credential, Role.ROLE_DEVICE, now_s=now_s)
        header = open_header(entry.header, credential, plan, cohort, all_openings)
        context = MaskContext(plan.digest, cohort, all_openings, credential.digest, own.credential.digest)
        mask = opener.decapsulate(header.header.x25519_pk, header.header.mlkem_ciphertexts[position], context)
        if not compare_digest(mask.tag, header.header.tags[position]):
            raise TrustError("bad-tag", f"{credential.credential.subject} does not hold the keys of its header")
        members.append(Member(header, mask.key))
    if len({member.header.header.x25519_pk for member in members}) != len(members):
        raise TrustError("repeated-ephemeral", "two headers of the set share an ephemeral key")
    return _trusted(root, members, own)


def open_votes(
    votes: Sequence[Signed], plan: CheckedPlan, cohort: int, openings: Sequence[CheckedOpening], root: bytes
) -> bytes:
    """Verify that all trustees voted for `root`; the digest that the answer carries.

    Raises:
        ProtocolError: `votes-incomplete`, or `votes-differ` when one is on another root.
        TrustError, MalformedError: as `open_vote`.
    """
    if len(votes) != len(openings):
        raise ProtocolError("votes-incomplete", "a trustee's vote is missing")
    for signed, opening in zip(votes, openings, strict=True):
        vote = open_vote(signed, opening.credential, plan, cohort)
        if vote.set_root != root:
            raise ProtocolError("votes-differ", f"{opening.credential.credential.subject} voted for another set")
    return words_digest(votes)


@dataclass(frozen=True, slots=True, repr=False)
class AnswerNoise:
    """The noise of one answer (rule T5).

    Attributes:
        multiplier_e6: what the opening promised.
        key: of `core.privacy.noise_key`: this round key, this set.
    """

    multiplier_e6: int
    key: bytes

    @classmethod
    def of(cls, own: CheckedOpening, secret: RoundSecret, root: bytes) -> AnswerNoise:
        """The noise that `own` promised, for the set under `root`."""
        told = own.opening
        key = noise_key(secret.to_bytes(), told.plan_digest, told.cohort, root)
        return cls(told.noise_multiplier_e6, key)


def mask_sum(plan: CheckedPlan, checked: CheckedSet, noise: AnswerNoise | None = None) -> bytes:
    """The packed sum of this trustee's masks over the set: n expansions into one vector, less the noise.

    The coordinator subtracts the answer, so that the opened sum carries the noise with its own sign. Without `noise`
    the sum is exact.
    """
    word_bits = plan.plan.word_bits
    total = np.zeros(plan.vector_words, word_dtype(word_bits))
    expander = MaskExpander()
    for member in checked.members:
        expander.apply(total, member.mask_key, word_bits, subtract=False)
    if noise is not None:
        add_noise(total, plan.layout, noise.multiplier_e6, noise.key, word_bits, subtract=True)
    reduce_in_place(total, word_bits)
    return pack(total, word_bits)


def _trusted(root: bytes, members: list[Member], own: CheckedOpening) -> CheckedSet:
    """Rule T3."""
    site = own.credential.site
    trusted_sites = {site, *own.opening.trusted_sites}
    own_size = sum(member.header.credential.site == site for member in members)
    trusted_size = sum(member.header.credential.site in trusted_sites for member in members)
    if own_size and trusted_size < own.opening.min_trusted:
        raise RefusedError(
            "min-trusted",
            f"site {site} asks for {own.opening.min_trusted} devices of sites it trusts; the set has {trusted_size}",
            remedy="wait for more devices, or let the site lower min_trusted or trust more sites in its policy",
        )
    return CheckedSet(root, tuple(members), own_size, trusted_size)


def _check_size(plan: CheckedPlan, size: int) -> None:
    if size < plan.plan.min_contributors:
        raise RefusedError(
            "set-too-small", f"the set has {size} devices; the plan asks for {plan.plan.min_contributors}"
        )
    if size > plan.plan.max_contributors:
        raise RefusedError("set-too-large", f"the set has {size} devices; the plan allows {plan.plan.max_contributors}")


def _position(own: CheckedOpening, openings: Sequence[CheckedOpening]) -> int:
    for place, opening in enumerate(openings):
        if opening.digest == own.digest:
            return place
    raise TrustError("not-among-openings", "this trustee's opening is not among those of the set")
