"""The enrolment client against a real TLS server that is scripted."""

# ruff: noqa: N802  # gRPC names its methods

import asyncio
import hashlib
import ssl
from contextlib import asynccontextmanager

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from nacl.signing import SigningKey

from bedside.core.errors import ConfigError, MalformedError, TrustError, UnavailableError
from bedside.core.signing.envelope import digest, parse_strict, sign_message
from bedside.core.signing.tokens import mint_token, open_request
from bedside.core.signing.trust import subject_of
from bedside.proto.v1 import enrolment_pb2 as wire
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.enrolment_pb2_grpc import EnrolmentServiceServicer, add_EnrolmentServiceServicer_to_server
from bedside.proto.v1.identity_pb2 import CertificateRequest, Credential, Federation, Role, SiteAuthority, Token
from bedside.service.identity import create_identity
from bedside.service.link import pinned_ca
from bedside.service.link.address import Address
from bedside.service.link.enrolment import connect_enrolment, poll_enrolment, start_enrolment
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.tls import create_ca, create_csr, create_tls_key, issue_certificate

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
        self.by_site = False
        self.countersigns_token = False
        self.certificate_key = None
        self.named_authority = AUTHORITY
        self.named_ca = ca_digest(authority)
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
            federation=self.federation(), ca_pem=self.authority.certificate_pem, service_address=self.service_address
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
async def serving(coordinator):
    csr = create_csr(coordinator.server_key, "coordinator")
    pem = issue_certificate(
        coordinator.authority, csr, "spiffe://demo/c", now_ns=CLOCK.now_ns(), days=1, ip_addresses=["127.0.0.1"]
    )
    chain = pem + coordinator.authority.certificate_pem
    server = grpc.aio.server()
    add_EnrolmentServiceServicer_to_server(coordinator, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(coordinator.server_key, chain)]))
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@pytest.fixture(scope="module")
def authority():
    return create_ca("demo", CLOCK.now_ns())


@pytest.fixture
def coordinator(authority, tmp_path):
    return ScriptedCoordinator(authority, tmp_path)


@pytest.fixture
def identity(tmp_path):
    return create_identity(tmp_path / "identity", Role.ROLE_DEVICE, ENTROPY)


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


async def start(identity, text):
    return await start_enrolment(identity, text, "wearer 1", clock=CLOCK, entropy=ENTROPY)


async def test_a_site_token_gives_a_credential_and_a_certificate_in_one_call(coordinator, authority, identity):
    async with serving(coordinator) as address:
        done = await start(identity, token(address, authority))
    assert (done.phase, done.fingerprint) == ("active", identity.fingerprint)
    assert identity.require_credential().credential.label == "wearer 1"
    assert identity.certificate_pem.startswith(b"-----BEGIN CERTIFICATE")
    assert identity.pins.service_address == "127.0.0.1:9"
    assert identity.ca_pem == authority.certificate_pem


@pytest.mark.parametrize("told", ["unix:/run/bedside.sock", "nonsense", "h" * 5_000 + ":1"])
async def test_an_address_that_leads_to_no_host_is_not_pinned(coordinator, authority, identity, told):
    coordinator.service_address = told
    async with serving(coordinator) as address:
        with pytest.raises(MalformedError) as caught:
            await start(identity, token(address, authority))
    assert caught.value.code == "bad-address"
    assert not identity.is_pinned


async def test_an_interrupted_request_is_sent_again_byte_for_byte(coordinator, authority, identity):
    coordinator.fail_once = True
    async with serving(coordinator) as address:
        text = token(address, authority)
        with pytest.raises(UnavailableError) as caught:
            await start(identity, text)
        assert caught.value.code == "peer-unavailable"
        await start(identity, text)
    first, second = coordinator.requests
    assert first.SerializeToString() == second.SerializeToString()


async def test_another_token_makes_another_request(coordinator, authority, identity):
    async with serving(coordinator) as address:
        await start(identity, token(address, authority))
        await start(identity, token(address, authority))
    first, second = coordinator.requests
    assert first.request.payload != second.request.payload


async def test_a_pending_request_becomes_active_when_the_site_decides(coordinator, authority, identity):
    coordinator.phase = wire.REQUEST_PHASE_PENDING
    async with serving(coordinator) as address:
        begun = await start(identity, token(address, authority))
        assert (begun.phase, begun.needs_approval) == ("pending", True)
        assert identity.credential is None
        assert (await poll_enrolment(identity, clock=CLOCK, entropy=ENTROPY)).phase == "pending"
        coordinator.phase = wire.REQUEST_PHASE_ACTIVE
        assert (await poll_enrolment(identity, clock=CLOCK, entropy=ENTROPY, wait_s=5)).phase == "active"
    assert (await poll_enrolment(identity, clock=CLOCK, entropy=ENTROPY)).phase == "active"  # no call is needed


async def test_a_refusal_carries_the_sites_words(coordinator, authority, identity):
    coordinator.phase = wire.REQUEST_PHASE_REFUSED
    async with serving(coordinator) as address:
        done = await start(identity, token(address, authority))
    assert (done.phase, done.code, done.sentence) == ("refused", "token-used", "this token was used up")
    assert identity.credential is None


async def test_an_enrolment_that_failed_does_not_bind_the_device_to_the_site(coordinator, authority, identity):
    coordinator.phase = wire.REQUEST_PHASE_REFUSED
    async with serving(coordinator) as address:
        await start(identity, token(address, authority))
        assert not identity.is_pinned
        for wrong in ({"enrolment_address": "127.0.0.1:1"}, {"root_pk": bytes(COORDINATOR.verify_key)}):
            with pytest.raises((TrustError, UnavailableError)):
                await start(identity, token(address, authority, site="south", **wrong))
            assert not identity.is_pinned
        coordinator.phase = wire.REQUEST_PHASE_ACTIVE
        assert (await start(identity, token(address, authority))).phase == "active"
    assert identity.pins.site == "north"


async def test_a_request_that_waits_goes_on_waiting_when_another_token_is_refused(coordinator, authority, identity):
    coordinator.phase = wire.REQUEST_PHASE_PENDING
    async with serving(coordinator) as address:
        await start(identity, token(address, authority))
        waiting = identity.request
        coordinator.phase = wire.REQUEST_PHASE_REFUSED
        assert (await start(identity, token(address, authority))).phase == "refused"
    assert identity.request == waiting
    assert identity.pins.site == "north"


async def test_a_revoked_device_with_its_old_token_hears_that_it_is_revoked(coordinator, authority, identity):
    coordinator.countersigns_token = True
    async with serving(coordinator) as address:
        text = token(address, authority)
        assert (await start(identity, text)).phase == "active"
        coordinator.phase = wire.REQUEST_PHASE_PENDING  # granted, and no longer on the roster
        done = await start(identity, text)
        assert (done.phase, done.code) == ("refused", "revoked")
        assert "north has revoked this device" in done.sentence
        assert (await start(identity, token(address, authority))).phase == "pending", "another token is another matter"
    assert identity.is_pinned


async def test_a_server_under_another_ca_gets_no_request(coordinator, authority, identity):
    stranger = create_ca("demo", CLOCK.now_ns())
    async with serving(coordinator) as address:
        with pytest.raises(TrustError) as caught:
            await start(identity, token(address, stranger))
    assert caught.value.code == "ca-mismatch"
    assert coordinator.requests == []
    assert identity.request is None


async def test_a_shown_ca_that_did_not_sign_the_server_is_not_enough(coordinator, authority, tmp_path):
    """A man in the middle may show the right CA behind his own leaf; the channel itself must then refuse."""
    false = create_ca("demo", CLOCK.now_ns())
    leaf = issue_certificate(
        false,
        create_csr(coordinator.server_key, "x"),
        "spiffe://demo/c",
        now_ns=CLOCK.now_ns(),
        days=1,
        ip_addresses=["127.0.0.1"],
    )
    server = grpc.aio.server()
    add_EnrolmentServiceServicer_to_server(coordinator, server)
    pair = (coordinator.server_key, leaf + authority.certificate_pem)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    try:
        async with await connect_enrolment(f"127.0.0.1:{port}", ca_digest(authority)) as client:
            with pytest.raises(UnavailableError):
                await client.get_federation(bytes(ROOT.verify_key))
    finally:
        await server.stop(0)


async def test_a_federation_that_names_another_ca_or_authority_is_refused(coordinator, authority, identity):
    coordinator.named_ca = b"x" * 32
    async with serving(coordinator) as address:
        with pytest.raises(TrustError) as caught:
            await start(identity, token(address, authority))
        assert caught.value.code == "ca-mismatch"
        coordinator.named_ca, coordinator.named_authority = ca_digest(authority), COORDINATOR
        with pytest.raises(TrustError) as caught:
            await start(identity, token(address, authority))
        assert caught.value.code == "authority-mismatch"
    assert coordinator.requests == []


async def test_a_federation_signed_by_a_stranger_is_refused(coordinator, authority, identity):
    async with serving(coordinator) as address:
        with pytest.raises(TrustError) as caught:
            await start(identity, token(address, authority, root_pk=bytes(COORDINATOR.verify_key)))
    assert caught.value.code == "bad-signature"


async def test_a_certificate_for_another_key_is_not_stored(coordinator, authority, identity, tmp_path):
    coordinator.certificate_key = create_tls_key(tmp_path / "other.key")
    async with serving(coordinator) as address:
        with pytest.raises(TrustError) as caught:
            await start(identity, token(address, authority))
    assert caught.value.code == "other-certificate"
    assert identity.certificate_pem is None


async def test_a_token_of_another_role_is_refused_before_any_call(authority, identity):
    with pytest.raises(TrustError) as caught:
        await start(identity, token("127.0.0.1:1", authority, role=Role.ROLE_TRUSTEE))
    assert caught.value.code == "wrong-role"


async def test_nothing_listening_is_one_sentence_with_a_remedy(authority, identity):
    with pytest.raises(UnavailableError) as caught:
        await start(identity, token("127.0.0.1:1", authority))
    assert (caught.value.code, bool(caught.value.remedy)) == ("coordinator-unreachable", True)


async def test_a_site_token_that_is_decided_a_moment_later_needs_no_second_call(coordinator, authority, identity):
    coordinator.phase = wire.REQUEST_PHASE_PENDING
    coordinator.by_site = True
    async with serving(coordinator) as address:
        done = await start(identity, token(address, authority))
    assert done.phase == "active"


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


async def test_the_first_handshake_goes_through_the_hospitals_proxy(coordinator, authority):
    proxy, asked = await connect_proxy()
    at = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    async with proxy, serving(coordinator) as address:
        assert await pinned_ca.fetch_ca(address, ca_digest(authority), proxy=at) == authority.certificate_pem
    assert asked == [f"CONNECT {address} HTTP/1.1"]


async def test_a_proxy_that_refuses_is_named(authority):
    proxy, _ = await connect_proxy(refuse=True)
    at = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    async with proxy:
        with pytest.raises(UnavailableError) as caught:
            await pinned_ca.fetch_ca("127.0.0.1:1", ca_digest(authority), proxy=at)
    assert "403" in caught.value.sentence


def test_the_proxy_of_the_environment_is_for_other_machines_only():
    environ = {"https_proxy": "http://user:word@proxy:3128", "no_proxy": "inside.example, .ward.example"}
    chosen = {
        host: pinned_ca.proxy_for(Address(host, 443), environ)
        for host in ("far.example", "127.0.0.1", "inside.example", "gw.ward.example")
    }
    assert chosen == {"far.example": "proxy:3128", "127.0.0.1": "", "inside.example": "", "gw.ward.example": ""}


async def test_polling_without_a_request_says_how_to_begin(identity):
    with pytest.raises(ConfigError) as caught:
        await poll_enrolment(identity, clock=CLOCK, entropy=ENTROPY)
    assert caught.value.code == "not-enrolled"


@pytest.mark.parametrize("address", ["nohost", ":1", "host:", "host:x"])
async def test_an_address_without_a_port_is_malformed(address):
    with pytest.raises(ConfigError):
        await pinned_ca.fetch_ca(address, b"")
