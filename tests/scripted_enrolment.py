"""An enrolment port that is scripted, behind real TLS, with tokens for it; and an HTTP CONNECT proxy."""

# ruff: noqa: N802  # gRPC names its methods

import asyncio
import hashlib
import ssl
from contextlib import asynccontextmanager

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from nacl.signing import SigningKey

from bedside.core.signing.envelope import digest, parse_strict, sign_message
from bedside.core.signing.tokens import mint_token, open_request
from bedside.core.signing.trust import subject_of
from bedside.proto.v1 import enrolment_pb2 as wire
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.enrolment_pb2_grpc import EnrolmentServiceServicer, add_EnrolmentServiceServicer_to_server
from bedside.proto.v1.identity_pb2 import CertificateRequest, Credential, Federation, Role, SiteAuthority, Token
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.tls import create_csr, create_tls_key, issue_certificate

ROOT, AUTHORITY, COORDINATOR = SigningKey(b"r" * 32), SigningKey(b"a" * 32), SigningKey(b"c" * 32)
CLOCK, ENTROPY = SystemClock(), SystemEntropy()


def ca_digest(authority):
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(authority.certificate_pem.decode())).digest()


class ScriptedCoordinator(EnrolmentServiceServicer):
    """Keeps every request that it saw; answers as its `phase` says."""

    def __init__(self, authority, directory):
        self.authority = authority
        self.phase = wire.REQUEST_PHASE_ACTIVE
        self.requests = []
        self.fail_once = False
        self.service_address = "127.0.0.1:9"
        self.server_time_s = 0
        self.by_site = False
        self.countersigns_token = False
        self.certificate_key = None
        self.named_authority = AUTHORITY
        self.named_ca = ca_digest(authority)
        directory.mkdir(exist_ok=True)
        self.server_key = create_tls_key(directory / "server.key")

    def federation(self):
        told = Federation(suite=1, federation="demo", version=1)
        told.sites.append(SiteAuthority(site="north", authority_pk=bytes(self.named_authority.verify_key)))
        told.coordinator.sign_pk, told.coordinator.ca_digest = bytes(COORDINATOR.verify_key), self.named_ca
        return sign_message("federation", told, ROOT)

    def state(self, request):
        answer = wire.RequestState(phase=self.phase, request_digest=digest(request.request.payload))
        if self.phase == wire.REQUEST_PHASE_ACTIVE:
            asked, _ = open_request(request)
            told = Credential(
                suite=1,
                federation="demo",
                site="north",
                role=asked.role,
                subject=subject_of(asked.role, asked.sign_pk),
                label=asked.label,
                sign_pk=asked.sign_pk,
                tls_key_digest=asked.tls_key_digest,
                token_digest=digest(parse_strict(Signed, asked.token).payload) if self.countersigns_token else b"",
            )
            answer.credential.CopyFrom(sign_message("credential", told, AUTHORITY))
        if self.phase == wire.REQUEST_PHASE_REFUSED:
            answer.code, answer.sentence = "token-used", "this token was used up"
        answer.needs_approval = self.phase == wire.REQUEST_PHASE_PENDING and not self.by_site
        if self.by_site:
            self.phase = wire.REQUEST_PHASE_ACTIVE
        return answer

    async def GetFederation(self, request, context):
        return wire.FederationBundle(
            federation=self.federation(),
            ca_pem=self.authority.certificate_pem,
            service_address=self.service_address,
            server_time_s=self.server_time_s,
        )

    async def RequestCredential(self, request, context):
        self.requests.append(request)
        if self.fail_once:
            self.fail_once = False
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        return self.state(request)

    async def GetRequestState(self, request, context):
        return self.state(self.requests[-1])

    async def IssueCertificate(self, request, context):
        asked = CertificateRequest.FromString(request.payload)
        csr = x509.load_der_x509_csr(asked.csr).public_bytes(Encoding.PEM)
        if self.certificate_key is not None:
            csr = create_csr(self.certificate_key, "other")
        pem = issue_certificate(self.authority, csr, "spiffe://demo/site/north/device/x", now_ns=CLOCK.now_ns(), days=1)
        return wire.IssuedCertificate(certificate_pem=pem)


@asynccontextmanager
async def serving(coordinator, client_ca=None):
    """Serve it on TLS; with a `client_ca`, only to those who show a certificate of that."""
    csr = create_csr(coordinator.server_key, "coordinator")
    pem = issue_certificate(
        coordinator.authority, csr, "spiffe://demo/c", now_ns=CLOCK.now_ns(), days=1, ip_addresses=["127.0.0.1"]
    )
    chain = pem + coordinator.authority.certificate_pem
    credentials = grpc.ssl_server_credentials(
        [(coordinator.server_key, chain)],
        root_certificates=client_ca.certificate_pem if client_ca else None,
        require_client_auth=client_ca is not None,
    )
    server = grpc.aio.server()
    add_EnrolmentServiceServicer_to_server(coordinator, server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def token(address, authority, **changes):
    told = {
        "federation": "demo",
        "site": "north",
        "role": Role.ROLE_DEVICE,
        "uses": 1,
        "root_pk": bytes(ROOT.verify_key),
        "ca_digest": ca_digest(authority),
        "enrolment_address": address,
        "authority_pk": bytes(AUTHORITY.verify_key),
    }
    return mint_token(Token(**(told | changes)), ENTROPY.token_bytes(32), AUTHORITY).text()


async def connect_proxy(refuse=False):
    """A proxy that knows CONNECT only; returns (server, what it was asked for)."""
    asked = []

    async def pump(reader, writer):
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def serve(reader, writer):
        opened = [writer]
        try:
            line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode()
            asked.append(line)
            if refuse:
                writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                await writer.drain()
                return
            host, port = line.split(" ")[1].split(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            opened.append(far_writer)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)
        finally:  # also when the test has ended before this
            for one in opened:
                one.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0), asked
