from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.errors import BedsideError, ConfigError, MalformedError, TrustError
from bedside.service.tls import (
    PeerIdentity,
    certificate_fingerprint,
    create_ca,
    create_csr,
    create_tls_key,
    issue_certificate,
    load_certificate,
    load_tls_key,
    peer_identity,
    spiffe_uri,
)

NOW_NS = 1_800_000_000 * 10**9
DEVICE = PeerIdentity("device", "north", "wearer-3")


@pytest.fixture(scope="module")
def authority():
    return create_ca("demo", NOW_NS)


@pytest.fixture
def key_pem(tmp_path):
    return create_tls_key(tmp_path / "tls.key")


def issue(authority, key_pem, uri, **names):
    return issue_certificate(authority, create_csr(key_pem, "x"), uri, now_ns=NOW_NS, days=365, **names)


def test_a_device_certificate_names_its_device(authority, key_pem):
    certificate_pem = issue(authority, key_pem, spiffe_uri("demo", DEVICE))
    assert peer_identity(certificate_pem, "demo") == ("device", "north", "wearer-3")


def test_another_federation_is_refused(authority, key_pem):
    with pytest.raises(TrustError) as caught:
        peer_identity(issue(authority, key_pem, spiffe_uri("other", DEVICE)), "demo")
    assert caught.value.code == "bad-identity"


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://demo/coordinator",
        "spiffe://demo/site/north/admin/x",
        "spiffe://demo/site/NORTH/device/x",
        "spiffe://demo/site/north/device/x/y",
        "spiffe://demo/site/north/device/x?a",
        "https://demo/site/north/device/x",
        "spiffe://demo/ward/north/device/x",
    ],
)
def test_a_name_that_is_no_device_or_trustee_is_refused(authority, key_pem, uri):
    with pytest.raises(TrustError):
        peer_identity(issue(authority, key_pem, uri), "demo")


def test_ca_and_server_certificates_hold_since_1970_and_a_device_for_a_year(authority, key_pem):
    server = load_certificate(issue(authority, key_pem, "spiffe://demo/coordinator", dns_names=["localhost"]))
    device = load_certificate(issue(authority, key_pem, spiffe_uri("demo", DEVICE)))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert load_certificate(authority.certificate_pem).not_valid_before_utc == epoch
    assert server.not_valid_before_utc == epoch
    assert device.not_valid_before_utc > epoch
    assert device.not_valid_after_utc.timestamp() == NOW_NS / 1e9 + 365 * 86_400


def test_an_independent_verifier_accepts_server_and_device_for_their_roles_only(authority, key_pem):
    server = load_certificate(issue(authority, key_pem, "spiffe://demo/coordinator", dns_names=["gw.demo"]))
    device = load_certificate(issue(authority, key_pem, spiffe_uri("demo", DEVICE)))
    policy = PolicyBuilder().store(Store([load_certificate(authority.certificate_pem)]))
    policy = policy.time(datetime.fromtimestamp(NOW_NS / 1e9, UTC))
    policy.build_server_verifier(x509.DNSName("gw.demo")).verify(server, [])
    policy.build_client_verifier().verify(device, [])
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("gw.demo")).verify(device, [])
    stranger = create_ca("demo", NOW_NS)
    forged = load_certificate(issue(stranger, key_pem, spiffe_uri("demo", DEVICE)))
    with pytest.raises(VerificationError):
        policy.build_client_verifier().verify(forged, [])


def test_a_request_that_does_not_prove_possession_is_refused(authority, key_pem):
    csr = create_csr(key_pem, "x")
    request = x509.load_pem_x509_csr(csr)
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoding = (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    stolen = bytes(der).replace(request.public_key().public_bytes(*encoding), other.public_bytes(*encoding))
    stolen_pem = x509.load_der_x509_csr(stolen).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(MalformedError) as caught:
        issue_certificate(authority, stolen_pem, spiffe_uri("demo", DEVICE), now_ns=NOW_NS, days=1)
    assert "possession" in caught.value.sentence


def test_only_p256_keys_are_certified(authority):
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        csr = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        with pytest.raises(MalformedError) as caught:
            issue_certificate(authority, csr, "spiffe://demo/site/a/device/b", now_ns=NOW_NS, days=1)
        assert caught.value.code == "bad-csr"


@given(st.binary(max_size=600))
def test_parsers_of_certificates_and_requests_raise_only_malformed(data):
    body = b"-----BEGIN CERTIFICATE-----\n" + data + b"\n-----END CERTIFICATE-----\n"
    for text in (data, body):
        with pytest.raises(MalformedError):
            peer_identity(text)
    with pytest.raises(MalformedError):
        issue_certificate(None, data, "spiffe://demo/site/a/device/b", now_ns=NOW_NS, days=1)


def test_a_fingerprint_is_of_the_certificate(authority):
    assert len(certificate_fingerprint(authority.certificate_pem)) == 64
    with pytest.raises(BedsideError):
        certificate_fingerprint(b"x" * 20_000)


def test_the_tls_key_file_is_guarded_like_every_key(tmp_path, key_pem):
    assert load_tls_key(tmp_path / "tls.key") == key_pem
    (tmp_path / "tls.key").chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        load_tls_key(tmp_path / "tls.key")
    assert caught.value.code == "key-mode"
    with pytest.raises(ConfigError):
        create_tls_key(tmp_path / "tls.key")
