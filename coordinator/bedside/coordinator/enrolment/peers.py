"""Who calls: from the certificate that TLS has checked to a credential on the newest roster, at every call."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bedside.coordinator.calls import Context
from bedside.coordinator.enrolment.registry import Registry
from bedside.core.errors import TrustError
from bedside.core.signing import VerifiedCredential
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.tls import PeerIdentity, load_certificate, peer_identity

_CACHED_CERTIFICATES: Final = 16_384
_ROLES: Final = {"device": Role.ROLE_DEVICE, "trustee": Role.ROLE_TRUSTEE}


class Peers:
    """Answers for the identity of callers on the mTLS port."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def caller(self, context: Context, role: str) -> VerifiedCredential:
        """The caller's credential.

        Raises:
            TrustError: `bad-identity`, `unknown-member`, `wrong-role` or `other-key`.
            RefusedError: `revoked`.
        """
        shown = list(context.auth_context().get("x509_pem_cert", []))
        if len(shown) != 1:
            raise TrustError("bad-identity", "the caller showed no certificate")
        return self.identify(bytes(shown[0]), role)

    def identify(self, certificate_pem: bytes, role: str) -> VerifiedCredential:
        """The credential that a certificate stands for; raises as `caller`."""
        identity, key_digest = _read_certificate(certificate_pem, self._registry.federation.federation)
        if identity.role != role:
            raise TrustError("wrong-role", f"this call is for a {role}, and {identity.id} is a {identity.role}")
        credential = self._registry.member(identity.site, identity.id)
        if credential.credential.role != _ROLES[role]:
            raise TrustError("wrong-role", f"{identity.id} is not a {role}")
        if credential.credential.tls_key_digest != key_digest:
            raise TrustError("other-key", f"the certificate of {identity.id} is not for the key of its credential")
        return credential


@lru_cache(maxsize=_CACHED_CERTIFICATES)
def _read_certificate(certificate_pem: bytes, federation: str) -> tuple[PeerIdentity, bytes]:
    """Name and key digest of a certificate: pure, so that 5,000 devices are parsed once each."""
    key = load_certificate(certificate_pem).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return peer_identity(certificate_pem, federation), hashlib.sha256(spki).digest()
