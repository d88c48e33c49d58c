"""The trustee's signed words, built around their chain links. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import Message
from nacl.signing import SigningKey

from bedside.core.errors import BedsideError
from bedside.core.limits import MAX_TEXT_CHARS
from bedside.core.securesum.keys import RoundPublic
from bedside.core.securesum.trustee import CheckedSet
from bedside.core.signing.envelope import SUITE, sign_message
from bedside.core.signing.trust import VerifiedCredential
from bedside.proto.v1 import round_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from bedside.trustee.store import RoundKey


@dataclass(frozen=True, slots=True)
class Promise:
    """What an opening promises.

    Attributes:
        min_trusted: devices of trusted sites that a set must hold.
        trusted_sites: in order, as the policy names them.
        noise_multiplier_e6: z of the noise that it will add, millionths.
        roster_versions: by site.
        policy_digest: of the policy that allowed the plan.
        issued_at_s: seconds since 1970.
        not_after_s: seconds since 1970; no vote after it.
    """

    min_trusted: int
    trusted_sites: tuple[str, ...]
    noise_multiplier_e6: int
    roster_versions: Mapping[str, int]
    policy_digest: bytes
    issued_at_s: int
    not_after_s: int


class Voice:
    """Signs in the name of one trustee."""

    def __init__(self, key: SigningKey, own: VerifiedCredential) -> None:
        self._key = key
        self._own = own

    def opening(self, key: RoundKey, public: RoundPublic, promise: Promise, chain: round_pb2.Chain) -> Signed:
        """Step 2: it will open one sum of this cohort."""
        versions = sorted(promise.roster_versions.items())
        told = round_pb2.Opening(
            suite=SUITE,
            plan_digest=key.plan_digest,
            cohort=key.cohort,
            site=self._own.site,
            trustee=self._own.credential.subject,
            credential_digest=self._own.digest,
            x25519_pk=public.x25519_pk,
            mlkem_pk=public.mlkem_pk,
            min_trusted=promise.min_trusted,
            trusted_sites=promise.trusted_sites,
            noise_multiplier_e6=promise.noise_multiplier_e6,
            roster_versions=[round_pb2.RosterVersion(site=site, version=version) for site, version in versions],
            policy_digest=promise.policy_digest,
            issued_at_s=promise.issued_at_s,
            not_after_s=promise.not_after_s,
            chain=chain,
        )
        return self._sign("opening", told)

    def vote(self, key: RoundKey, checked: CheckedSet, chain: round_pb2.Chain) -> Signed:
        """Step 4: this set or none."""
        told = round_pb2.Vote(
            suite=SUITE,
            plan_digest=key.plan_digest,
            cohort=key.cohort,
            credential_digest=self._own.digest,
            set_root=checked.root,
            set_size=len(checked.members),
            trusted_size=checked.trusted_size,
            chain=chain,
        )
        return self._sign("vote", told)

    def answer(
        self,
        key: RoundKey,
        set_root: bytes,
        votes_digest: bytes,
        mask_words: BlobRef,
        noise_multiplier_e6: int,
        chain: round_pb2.Chain,
    ) -> Signed:
        """Step 5: the sum of masks, named by its BLAKE3 digest."""
        told = round_pb2.Answer(
            suite=SUITE,
            plan_digest=key.plan_digest,
            cohort=key.cohort,
            credential_digest=self._own.digest,
            set_root=set_root,
            votes_digest=votes_digest,
            mask_sum_digest=mask_words.digest,
            mask_sum_bytes=mask_words.size_bytes,
            noise_multiplier_e6=noise_multiplier_e6,
            chain=chain,
        )
        return self._sign("answer", told)

    def closed(self, key: RoundKey, reason: round_pb2.CloseReason.ValueType, chain: round_pb2.Chain) -> Signed:
        """No answer will come."""
        told = round_pb2.Closed(
            suite=SUITE,
            plan_digest=key.plan_digest,
            cohort=key.cohort,
            credential_digest=self._own.digest,
            reason=reason,
            chain=chain,
        )
        return self._sign("closed", told)

    def refusal(self, key: RoundKey, error: BedsideError, sequence: int) -> Signed:
        """It will not take part, or not with this set; no link of the chain."""
        told = round_pb2.Refusal(
            suite=SUITE,
            plan_digest=key.plan_digest,
            cohort=key.cohort,
            credential_digest=self._own.digest,
            code=error.code[:MAX_TEXT_CHARS],
            sentence=error.sentence[:MAX_TEXT_CHARS],
            sequence=sequence,
        )
        return self._sign("refusal", told)

    def _sign(self, kind: str, message: Message) -> Signed:
        return sign_message(kind, message, self._key)
