"""The site authority: one Ed25519 key that countersigns this hospital's own devices and trustee, and nobody else's.

Source: DESIGN section 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nacl.signing import SigningKey

from bedside.core.clock import Entropy
from bedside.core.signing.envelope import SUITE, sign_message
from bedside.core.signing.tokens import BearerToken, mint_token
from bedside.core.signing.trust import VerifiedCredential, open_credential, subject_of
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import Credential, Role, Roster, Token
from bedside.service.identity import Pins

CREDENTIAL_DAYS: Final = 3 * 365
"""Days that a credential lasts: longer than a TLS certificate, so that uploads which waited stay valid."""

ROSTER_DAYS: Final = 365
"""Days that a roster lasts; the daemon signs it again at half of that."""

DAY_S: Final = 86_400
SEED_BYTES: Final = 32


class SiteAuthority:
    """Signs in the name of one site of one federation."""

    def __init__(self, key: SigningKey, site: str, federation: str) -> None:
        self.site = site
        self.federation = federation
        self._key = key

    @property
    def authority_pk(self) -> bytes:
        """Public half, 32 bytes: what the federation names."""
        return bytes(self._key.verify_key)

    def credential(
        self,
        role: Role.ValueType,
        sign_pk: bytes,
        tls_key_digest: bytes,
        label: str,
        *,
        now_s: int,
        token_digest: bytes = b"",
    ) -> VerifiedCredential:
        """Countersign a key of this site."""
        told = Credential(
            suite=SUITE,
            federation=self.federation,
            site=self.site,
            role=role,
            subject=subject_of(role, sign_pk),
            label=label,
            sign_pk=sign_pk,
            tls_key_digest=tls_key_digest,
            issued_at_s=now_s,
            not_after_s=now_s + CREDENTIAL_DAYS * DAY_S,
            token_digest=token_digest,
        )
        return open_credential(sign_message("credential", told, self._key), self.authority_pk)

    def roster(self, version: int, credential_digests: Sequence[bytes], *, now_s: int) -> Signed:
        """Sign who belongs to the site now; digests are ascending."""
        told = Roster(
            suite=SUITE,
            federation=self.federation,
            site=self.site,
            version=version,
            issued_at_s=now_s,
            not_after_s=now_s + ROSTER_DAYS * DAY_S,
            credential_digests=credential_digests,
        )
        return sign_message("roster", told, self._key)

    def token(
        self, pins: Pins, role: Role.ValueType, *, uses: int, hours: int, label: str, now_s: int, entropy: Entropy
    ) -> BearerToken:
        """Mint a token that tells its bearer what to pin and where to call."""
        told = Token(
            federation=self.federation,
            site=self.site,
            role=role,
            uses=uses,
            issued_at_s=now_s,
            not_after_s=now_s + hours * 3_600,
            label=label,
            root_pk=bytes.fromhex(pins.root_pk),
            ca_digest=bytes.fromhex(pins.ca_digest),
            enrolment_address=pins.enrolment_address,
            authority_pk=self.authority_pk,
        )
        return mint_token(told, entropy.token_bytes(SEED_BYTES), self._key)
