"""Client of the enrolment port, for devices and trustees alike.

The port speaks server TLS only. The caller knows one thing beforehand: the SHA-256 of the CA, from its token or its
pins. So the first handshake reads the server's chain and believes none of it; only a CA certificate whose digest is
the pinned one becomes the trust anchor of the channel that is then used.

Invariants:
    * Keys are made locally, and the request is on the disk before it is sent: a retry is the same request.
    * Nothing that arrives is stored before it was verified against the pinned root, authority and CA.
    * A machine is bound to a site by an enrolment that was accepted or waits; one that failed leaves no pins.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message

from bedside.core.clock import Clock, Entropy
from bedside.core.errors import BedsideError, ConfigError, StoreError, TrustError, UnavailableError
from bedside.core.signing.envelope import SUITE, digest, parse_strict, sign_message
from bedside.core.signing.tokens import BearerToken, read_token, token_digest, use_token
from bedside.core.signing.trust import open_federation
from bedside.proto.v1.common_pb2 import Empty, Signed
from bedside.proto.v1.enrolment_pb2 import (
    EnrolRequest,
    FederationBundle,
    IssuedCertificate,
    RequestPhase,
    RequestQuery,
    RequestState,
)
from bedside.proto.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from bedside.proto.v1.identity_pb2 import CertificateRequest, CredentialRequest, Role
from bedside.service.identity import Identity, Pins
from bedside.service.link.address import check_told_address, parse_address
from bedside.service.link.channel import ClientTls, open_channel
from bedside.service.link.errors import remote_errors
from bedside.service.link.pinned_ca import ca_mismatch, fetch_ca, pem_digest

CALL_TIMEOUT_S: Final = 20.0
NONCE_BYTES: Final = 16
POLL_INTERVAL_S: Final = 0.5
SETTLE_INTERVAL_S: Final = 0.05
SETTLE_S: Final = 5.0
"""Seconds in which the desk of a site that is connected answers a site token."""

_NS_PER_S: Final = 1_000_000_000
_DEFAULT_PORT: Final = 443

_UNDECIDED: Final = (UnavailableError, StoreError, ConfigError)
"""Trouble of the way or of our own disk, which says nothing of what the site has decided."""

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """How far an enrolment has come.

    Attributes:
        phase: `pending`, `active` or `refused`.
        needs_approval: a person at the site must approve `fingerprint`.
        fingerprint: what that person compares.
        code: stable code when refused.
        sentence: for the operator, in every phase.
    """

    phase: str
    needs_approval: bool
    fingerprint: str
    code: str
    sentence: str


class EnrolmentClient:
    """One channel to the enrolment port whose CA was checked against a pinned digest. Use with `async with`."""

    def __init__(self, channel: grpc.aio.Channel, ca_pem: bytes, address: str) -> None:
        self.ca_pem = ca_pem
        self.address = address
        self._channel = channel
        self._stub = EnrolmentServiceStub(channel)

    async def __aenter__(self) -> EnrolmentClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def get_federation(self, root_pk: bytes, *, min_version: int = 0) -> FederationBundle:
        """Fetch the federation document; its signature, and that it names this CA, have been checked.

        Raises:
            TrustError: `bad-signature`, `federation-rollback` or `ca-mismatch`.
        """
        bundle = await self._call(self._stub.GetFederation(Empty(), timeout=CALL_TIMEOUT_S))
        federation = open_federation(bundle.federation, root_pk, min_version=min_version)
        if federation.coordinator.ca_digest != pem_digest(self.ca_pem):
            raise ca_mismatch(self.address)
        return bundle

    async def request_credential(self, request: EnrolRequest) -> RequestState:
        """Ask for a credential; the same request again is answered with its present state."""
        return await self._call(self._stub.RequestCredential(request, timeout=CALL_TIMEOUT_S))

    async def get_request_state(self, request_digest: bytes) -> RequestState:
        """How a request stands."""
        query = RequestQuery(request_digest=request_digest)
        return await self._call(self._stub.GetRequestState(query, timeout=CALL_TIMEOUT_S))

    async def publish_roster(self, roster: Signed) -> None:
        """Hand in a site's signed roster."""
        await self._call(self._stub.PublishRoster(roster, timeout=CALL_TIMEOUT_S))

    async def issue_certificate(self, request: Signed) -> IssuedCertificate:
        """Get the first certificate, or a new one, for a credential that is on its roster."""
        return await self._call(self._stub.IssueCertificate(request, timeout=CALL_TIMEOUT_S))

    async def _call(self, call: Awaitable[Answer]) -> Answer:
        with remote_errors(f"the enrolment port {self.address}"):
            return await call


async def connect_enrolment(address: str, ca_digest: bytes) -> EnrolmentClient:
    """Open a channel to `address` (host:port) that trusts the CA with SHA-256 `ca_digest` and no other.

    Raises:
        UnavailableError: `coordinator-unreachable`.
        TrustError: `ca-mismatch` when another CA, or a TLS-inspecting proxy, answers.
    """
    ca_pem = await fetch_ca(address, ca_digest)
    return EnrolmentClient(open_channel(parse_address(address), ClientTls(ca_pem)), ca_pem, address)


async def start_enrolment(
    identity: Identity, token_text: str, label: str, *, clock: Clock, entropy: Entropy
) -> Enrolment:
    """Pin what the token says, ask for a credential, and finish at once where the site decides at once.

    May be repeated after any interruption: the stored request is sent again while it is for the same token.

    Raises:
        MalformedError: `bad-token`.
        TrustError: `ca-mismatch`, `token-expired`, `token-used` and the like.
        UnavailableError: `coordinator-unreachable` and the like; the request is stored, call again.
    """
    bearer = read_token(token_text)
    if bearer.token.role != identity.role:
        raise TrustError(
            "wrong-role",
            f"this token is for a {Role.Name(bearer.token.role)[5:].lower()}",
            remedy="ask the site's admin for a token of the right role",
        )
    waiting = _waiting_for_another(identity, bearer)
    identity.save_pins(pins_of(bearer))
    sent = False
    try:
        async with await connect_enrolment(bearer.token.enrolment_address, bearer.token.ca_digest) as client:
            await refresh_federation(identity, client)
            request = _stored_or_new_request(identity, bearer, label, clock, entropy)
            sent = True
            state = await client.request_credential(request)
            if not _is_revoked(identity, state):
                state = await _settled(client, state, clock)
            found = await _take_state(identity, client, state, clock, entropy)
    except BedsideError as error:
        if not (sent and isinstance(error, _UNDECIDED)):  # what was sent may have been taken: it is kept
            _undo(identity, waiting)
        raise
    if found.phase == "refused":
        _undo(identity, waiting)
    return found


async def poll_enrolment(identity: Identity, *, clock: Clock, entropy: Entropy, wait_s: float = 0.0) -> Enrolment:
    """Ask how the stored request stands, until it is decided or `wait_s` seconds have passed.

    Raises:
        ConfigError: `not-enrolled` when nothing was requested.
        UnavailableError: `coordinator-unreachable`.
    """
    pins = identity.pins
    request = identity.request
    if request is None or (identity.credential is not None and identity.certificate_pem is not None):
        identity.require_credential()
        return Enrolment("active", False, identity.fingerprint, "", f"enrolled at site {pins.site}")
    deadline_s = clock.monotonic_s() + wait_s
    async with await connect_enrolment(pins.enrolment_address, bytes.fromhex(pins.ca_digest)) as client:
        while True:
            state = await client.get_request_state(digest(request.request.payload))
            enrolment = await _take_state(identity, client, state, clock, entropy)
            if enrolment.phase != "pending" or clock.monotonic_s() >= deadline_s:
                return enrolment
            await asyncio.sleep(POLL_INTERVAL_S)


async def renew_certificate(identity: Identity, client: EnrolmentClient, *, clock: Clock, entropy: Entropy) -> None:
    """Get a certificate for the identity's credential and store it. Loads X.509 code (10 MB).

    Raises:
        TrustError: `not-on-roster` and the like from the coordinator.
        ConfigError: `not-enrolled`.
    """
    credential = identity.require_credential()
    request = CertificateRequest(
        suite=SUITE,
        credential=credential.signed.SerializeToString(deterministic=True),
        csr=_csr_der(identity.tls_key_pem, identity.subject),
        requested_at_s=clock.now_ns() // _NS_PER_S,
        nonce=entropy.token_bytes(NONCE_BYTES),
    )
    issued = await client.issue_certificate(sign_message("certificate-request", request, identity.signing_key))
    _check_certificate_key(identity, issued.certificate_pem)
    identity.save_certificate(issued.certificate_pem)


async def refresh_federation(identity: Identity, client: EnrolmentClient) -> None:
    """Fetch federation, CA and service address, check them against the pins, and store them."""
    pins = identity.pins
    bundle = await client.get_federation(bytes.fromhex(pins.root_pk))
    federation = identity.save_federation(bundle.federation)
    authorities = {entry.site: entry.authority_pk.hex() for entry in federation.sites}
    if federation.federation != pins.federation or authorities.get(pins.site) != pins.authority_pk:
        raise TrustError(
            "authority-mismatch",
            f"the federation does not name site {pins.site} with the authority that was pinned here",
            remedy="compare the authority key with the federation's root holder",
        )
    identity.save_ca(client.ca_pem)
    told = bundle.service_address
    identity.save_pins(_with_service(pins, check_told_address(told) if told else pins.service_address))


def _waiting_for_another(identity: Identity, bearer: BearerToken) -> EnrolRequest | None:
    """The request with another token that already waits, if there is one."""
    stored = identity.request if identity.is_pinned else None
    if stored is None or _token_of(stored) == bearer.signed.SerializeToString(deterministic=True):
        return None
    return stored


def _undo(identity: Identity, waiting: EnrolRequest | None) -> None:
    """After a failure: what is issued stays, what waits goes on waiting, and else nothing is pinned."""
    if waiting is not None:
        identity.save_request(waiting)
    elif identity.credential is None:
        identity.forget()


def _is_revoked(identity: Identity, state: RequestState) -> bool:
    """Whether the request was granted once, and its credential is on the roster no longer."""
    credential, request = identity.credential, identity.request
    if state.phase != RequestPhase.REQUEST_PHASE_PENDING or credential is None or request is None:
        return False
    token = parse_strict(Signed, _token_of(request))
    return credential.credential.token_digest == token_digest(token)


def _token_of(request: EnrolRequest) -> bytes:
    return parse_strict(CredentialRequest, request.request.payload).token


def pins_of(bearer: BearerToken) -> Pins:
    """What a token's bearer pins."""
    token = bearer.token
    return Pins(
        federation=token.federation,
        root_pk=token.root_pk.hex(),
        authority_pk=token.authority_pk.hex(),
        ca_digest=token.ca_digest.hex(),
        site=token.site,
        enrolment_address=token.enrolment_address,
    )


def _with_service(pins: Pins, service_address: str) -> Pins:
    return Pins(
        federation=pins.federation,
        root_pk=pins.root_pk,
        authority_pk=pins.authority_pk,
        ca_digest=pins.ca_digest,
        site=pins.site,
        enrolment_address=pins.enrolment_address,
        service_address=service_address,
    )


def _stored_or_new_request(
    identity: Identity, bearer: BearerToken, label: str, clock: Clock, entropy: Entropy
) -> EnrolRequest:
    token = bearer.signed.SerializeToString(deterministic=True)
    stored = identity.request
    if stored is not None and _token_of(stored) == token:
        return stored
    request = CredentialRequest(
        suite=SUITE,
        federation=bearer.token.federation,
        site=bearer.token.site,
        role=identity.role,
        label=label,
        sign_pk=identity.sign_pk,
        tls_key_digest=identity.tls_key_digest,
        requested_at_s=clock.now_ns() // _NS_PER_S,
        nonce=entropy.token_bytes(NONCE_BYTES),
        token=token,
    )
    made = use_token(bearer, request, identity.signing_key)
    identity.save_request(made)
    return made


async def _take_state(
    identity: Identity, client: EnrolmentClient, state: RequestState, clock: Clock, entropy: Entropy
) -> Enrolment:
    fingerprint = identity.fingerprint
    if state.phase == RequestPhase.REQUEST_PHASE_REFUSED:
        return Enrolment("refused", False, fingerprint, state.code, state.sentence)
    if _is_revoked(identity, state):
        sentence = f"site {identity.pins.site} has revoked this device; with a new token it can join again"
        return Enrolment("refused", False, fingerprint, "revoked", sentence)
    if state.phase != RequestPhase.REQUEST_PHASE_ACTIVE:
        sentence = state.sentence or "the site has not answered yet"
        return Enrolment("pending", state.needs_approval, fingerprint, "", sentence)
    identity.save_credential(state.credential)
    await renew_certificate(identity, client, clock=clock, entropy=entropy)
    return Enrolment("active", False, fingerprint, "", f"enrolled at site {identity.pins.site}")


async def _settled(client: EnrolmentClient, state: RequestState, clock: Clock) -> RequestState:
    """A site token is decided by a program, within moments: wait for it. A person takes longer: do not."""
    deadline_s = clock.monotonic_s() + SETTLE_S
    while (
        state.phase == RequestPhase.REQUEST_PHASE_PENDING
        and not state.needs_approval
        and clock.monotonic_s() < deadline_s
    ):
        await asyncio.sleep(SETTLE_INTERVAL_S)
        state = await client.get_request_state(state.request_digest)
    return state


def _csr_der(tls_key_pem: bytes, common_name: str) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from bedside.service.tls import create_csr

    return x509.load_pem_x509_csr(create_csr(tls_key_pem, common_name)).public_bytes(Encoding.DER)


def _check_certificate_key(identity: Identity, certificate_pem: bytes) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from bedside.service.tls import load_certificate

    key = load_certificate(certificate_pem).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if hashlib.sha256(spki).digest() != identity.tls_key_digest:
        raise TrustError("other-certificate", "the coordinator issued a certificate for another key")
