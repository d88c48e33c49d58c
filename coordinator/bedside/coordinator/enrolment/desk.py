"""Credential requests and certificates: the coordinator relays and counts, the site decides.

Invariants:
    * A request is taken once: its digest names it, and the use of its token is counted in the same transaction.
    * Only a site's own authority can sign the credential that ends a request; the coordinator checks and passes on.
    * A granted request stays pending until the site's roster lists the credential: before that it opens nothing.
    * A certificate is issued for the key that a listed credential names, and for no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection

from bedside.coordinator.enrolment.registry import Registry
from bedside.coordinator.store import Store, members
from bedside.core.clock import Clock
from bedside.core.errors import MalformedError, ProtocolError, RefusedError, TrustError
from bedside.core.limits import MAX_TEXT_CHARS
from bedside.core.signing import VerifiedCredential, digest, open_signed, parse_strict
from bedside.core.signing.tokens import open_request, open_token, token_digest
from bedside.core.signing.trust import authority_of
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.enrolment_pb2 import EnrolRequest, IssuedCertificate, RequestPhase, RequestState
from bedside.proto.v1.identity_pb2 import CertificateRequest, CredentialRequest, Role, Token
from bedside.proto.v1.trustee_pb2 import CredentialDecision
from bedside.service.tls import Authority, PeerIdentity, certificate_expiry_ns, issue_certificate, spiffe_uri

CERTIFICATE_DAYS: Final = 365
_NS_PER_S: Final = 1_000_000_000
_PHASES: Final = {
    members.PENDING: RequestPhase.REQUEST_PHASE_PENDING,
    members.ACTIVE: RequestPhase.REQUEST_PHASE_ACTIVE,
    members.REFUSED: RequestPhase.REQUEST_PHASE_REFUSED,
}


class EnrolmentDesk:
    """Takes requests, relays decisions, issues certificates."""

    def __init__(self, store: Store, registry: Registry, authority: Authority, clock: Clock) -> None:
        self._store = store
        self._registry = registry
        self._authority = authority
        self._clock = clock

    def request(self, enrol: EnrolRequest) -> RequestState:
        """Take a request, or say how a known one stands.

        Raises:
            TrustError: `bad-signature`, `token-expired`, `token-used-up`, `unknown-site`, `token-mismatch`.
            MalformedError: when it is not well-formed.
        """
        request, signed_token = open_request(enrol)
        token, by_coordinator = self._open_token(signed_token)
        row = members.RequestRow(
            digest=digest(enrol.request.payload),
            site=request.site,
            enrol=enrol.SerializeToString(deterministic=True),
            needs_approval=by_coordinator,
            phase=members.PENDING,
            credential_digest=None,
            code="",
            sentence="",
            requested_at_s=self._now_s(),
        )
        self._store.run_tx("take-request", _take_request(row, token_digest(signed_token), token.uses))
        return self.state(row.digest)

    def state(self, request_digest: bytes) -> RequestState:
        """How a request stands.

        Raises:
            ProtocolError: `unknown-request`.
        """
        row, credential = self._store.run_tx("request-state", _read_request(request_digest))
        if row is None:
            raise ProtocolError("unknown-request", "this request is not known here", remedy="send it again")
        state = RequestState(
            phase=_PHASES[row.phase],
            request_digest=row.digest,
            code=row.code,
            sentence=row.sentence,
            needs_approval=row.needs_approval,
        )
        if credential is not None and self._registry.trust.lists(credential.site, credential.digest):
            state.credential.CopyFrom(parse_strict(Signed, credential.signed))
        elif credential is not None:
            state.phase = RequestPhase.REQUEST_PHASE_PENDING
            state.sentence = f"site {credential.site} granted the request; its roster does not list it (yet)"
        return state

    def decide(self, trustee: VerifiedCredential, decision: CredentialDecision) -> None:
        """Take a site's word on a request of its own; a word that was given stays.

        Raises:
            ProtocolError: `unknown-request`.
            RefusedError: `other-site`.
            TrustError: `bad-signature`, or `other-request` when the credential is not for the request's keys.
        """
        row, _ = self._store.run_tx("read-request", _read_request(decision.request_digest))
        if row is None:
            raise ProtocolError("unknown-request", "this request is not known here")
        if row.site != trustee.site:
            raise RefusedError("other-site", f"the trustee of {trustee.site} cannot decide for site {row.site}")
        if not decision.HasField("credential"):
            words = decision.code[:MAX_TEXT_CHARS] or "refused", decision.sentence[:MAX_TEXT_CHARS]
            self._store.run_tx("refuse-request", _decide(row.digest, members.REFUSED, None, *words))
            return
        credential = self._registry.open(decision.credential)
        _check_for_request(credential, row)
        self._registry.remember(credential)
        self._store.run_tx("grant-request", _decide(row.digest, members.ACTIVE, credential.digest, "", ""))

    def pending(self, site: str) -> list[EnrolRequest]:
        """Requests that wait for a site's word."""
        rows = self._store.run_tx("pending-requests", lambda tx: members.pending_requests(tx, site))
        return [parse_strict(EnrolRequest, row.enrol) for row in rows]

    def pending_count(self) -> int:
        """Requests that wait for any site's word."""
        return self._store.run_tx("pending-count", members.pending_count)

    def issue(self, signed: Signed) -> IssuedCertificate:
        """Issue a certificate for a listed credential, whatever the age of its last one.

        Raises:
            TrustError: `bad-signature`, `not-on-roster`, `other-key` and the like.
            MalformedError: `bad-csr`, or when it is not well-formed.
        """
        claimed = parse_strict(CertificateRequest, signed.payload)
        shown = self._registry.open(parse_strict(Signed, claimed.credential))
        credential = self._registry.trust.credential(shown.signed, shown.credential.role)
        request = parse_strict(CertificateRequest, open_signed("certificate-request", signed, credential.sign_pk))
        csr_pem, key_digest = _read_csr(request.csr)
        if key_digest != credential.credential.tls_key_digest:
            raise TrustError("other-key", "the signing request is not for the TLS key of the credential")
        self._registry.remember(credential)
        now_ns = self._clock.now_ns()
        pem = issue_certificate(self._authority, csr_pem, self._uri(credential), now_ns=now_ns, days=CERTIFICATE_DAYS)
        return IssuedCertificate(certificate_pem=pem, not_after_s=certificate_expiry_ns(pem) // _NS_PER_S)

    def _uri(self, credential: VerifiedCredential) -> str:
        told = credential.credential
        identity = PeerIdentity("device" if told.role == Role.ROLE_DEVICE else "trustee", told.site, told.subject)
        return spiffe_uri(told.federation, identity)

    def _open_token(self, signed: Signed) -> tuple[Token, bool]:
        """Verify a token under its site's authority, or else under the coordinator's key (then a person approves)."""
        claimed = parse_strict(Token, signed.payload)
        if claimed.federation != self._registry.federation.federation:
            raise TrustError("other-federation", "this token is for another federation")
        authority_pk = authority_of(self._registry.federation, claimed.site)
        now_s = self._now_s()
        try:
            return open_token(signed, authority_pk, now_s=now_s), False
        except TrustError as error:
            if error.code != "bad-signature":
                raise
        return open_token(signed, self._registry.federation.coordinator.sign_pk, now_s=now_s), True

    def _now_s(self) -> int:
        return self._clock.now_ns() // _NS_PER_S


def _take_request(row: members.RequestRow, token: bytes, uses: int) -> Callable[[Connection], None]:
    def work(tx: Connection) -> None:
        if members.request(tx, row.digest) is not None:
            return
        if members.token_use_count(tx, token) >= uses:
            raise TrustError(
                "token-used-up",
                f"this token was made for {uses} use{'s' if uses > 1 else ''} and has been used",
                remedy="ask the site's admin for a new one (`bedside site token`)",
            )
        members.put_request(tx, row, token)

    return work


def _read_request(
    request_digest: bytes,
) -> Callable[[Connection], tuple[members.RequestRow | None, members.CredentialRow | None]]:
    def work(tx: Connection) -> tuple[members.RequestRow | None, members.CredentialRow | None]:
        row = members.request(tx, request_digest)
        granted = row.credential_digest if row is not None else None
        return row, members.credential(tx, granted) if granted is not None else None

    return work


def _decide(
    request_digest: bytes, phase: str, credential_digest: bytes | None, code: str, sentence: str
) -> Callable[[Connection], None]:
    return lambda tx: members.decide_request(tx, request_digest, phase, credential_digest, code, sentence)


def _check_for_request(credential: VerifiedCredential, row: members.RequestRow) -> None:
    enrol = parse_strict(EnrolRequest, row.enrol)
    asked = parse_strict(CredentialRequest, enrol.request.payload)
    told = credential.credential
    wanted = (asked.site, asked.role, asked.sign_pk, asked.tls_key_digest)
    if (told.site, told.role, told.sign_pk, told.tls_key_digest) != wanted:
        raise TrustError("other-request", "the credential is not for the keys of the request")


def _read_csr(der: bytes) -> tuple[bytes, bytes]:
    """The request as PEM, and SHA-256 of its key's SubjectPublicKeyInfo."""
    try:
        request = x509.load_der_x509_csr(der)
        spki = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return request.public_bytes(Encoding.PEM), hashlib.sha256(spki).digest()
    except Exception as error:  # exotic keys and algorithms raise several unrelated classes
        raise MalformedError("bad-csr", "the bytes are not a DER signing request") from error
