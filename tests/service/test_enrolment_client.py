"""The enrolment client against a real TLS server that is scripted."""

import grpc
import pytest

from bedside.core.errors import ConfigError, MalformedError, TrustError, UnavailableError
from bedside.proto.v1 import enrolment_pb2 as wire
from bedside.proto.v1.enrolment_pb2_grpc import add_EnrolmentServiceServicer_to_server
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.link import pinned_ca
from bedside.service.link.address import Address
from bedside.service.link.enrolment import connect_enrolment, poll_enrolment, start_enrolment
from bedside.service.tls import create_ca, create_csr, create_tls_key, issue_certificate
from scripted_enrolment import (
    CLOCK,
    COORDINATOR,
    ENTROPY,
    ROOT,
    ca_digest,
    connect_proxy,
    serving,
    token,
)


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
