"""P-256 keys, signing requests and certificates of the link (RFC 5280, RFC 2986, SPIFFE X.509-SVID).

Invariants:
    * CA and server certificates start in 1970: a board without a clock must be able to connect.
    * A certificate's holder is named by one SPIFFE URI; its subject is decoration.
    * A request is answered only when its own signature proves possession of a P-256 key; nothing else of the
      request enters the certificate.

Importing this module costs 10 MB, so nothing in `bedside.service` imports it on the way to somewhere else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bedside.core.errors import ConfigError, MalformedError, TrustError
from bedside.core.ids import check_id
from bedside.core.limits import MAX_ID_CHARS
from bedside.service.files import read_private, write_durable

Role = Literal["device", "trustee"]
_ROLES: Final[dict[str, Role]] = {"device": "device", "trustee": "trustee"}

MAX_PEM_BYTES: Final = 16_384
"""Bytes of one PEM file or request: ours are below 1 KiB."""

CA_DAYS: Final = 20 * 365
"""Days that a CA certificate lasts from its making: longer than the devices it serves."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCK_SKEW: Final = timedelta(days=1)
_NS_PER_S: Final = 1_000_000_000


class Authority(NamedTuple):
    """A certificate authority: its certificate, and its private key, both PEM."""

    certificate_pem: bytes
    key_pem: bytes


class PeerIdentity(NamedTuple):
    """Who a certificate speaks for."""

    role: Role
    site: str
    id: str


def spiffe_uri(federation: str, identity: PeerIdentity) -> str:
    """Return the name of a peer, for instance `spiffe://demo/site/north/device/wearer-3`."""
    return f"spiffe://{federation}/site/{identity.site}/{identity.role}/{identity.id}"


def create_tls_key(path: Path) -> bytes:
    """Make a P-256 key, write it to `path` as PKCS 8 PEM with mode 0600, and return that PEM.

    Raises:
        ConfigError: `key-exists`: a key is never replaced.
        StoreError: `file-write`.
    """
    if path.exists():
        raise ConfigError("key-exists", f"there is already a key in {path}", remedy="move it away first")
    key_pem = _key_pem(ec.generate_private_key(ec.SECP256R1()))
    write_durable(path, key_pem)
    return key_pem


def load_tls_key(path: Path) -> bytes:
    """Return the PEM of the P-256 key at `path`.

    Raises:
        ConfigError: `key-missing`, `key-mode`, `key-owner`, `key-size`, or `key-format`.
    """
    key_pem = read_private(path, MAX_PEM_BYTES)
    _private_key(key_pem)
    return key_pem


def create_csr(key_pem: bytes, common_name: str) -> bytes:
    """Return a PEM signing request for the key; it proves possession and asks for nothing else."""
    request = x509.CertificateSigningRequestBuilder().subject_name(_subject(common_name))
    signed = request.sign(_private_key(key_pem), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def create_ca(name: str, now_ns: int, days: int = CA_DAYS) -> Authority:
    """Make a certificate authority that can sign ends but no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    builder = (
        _builder(key.public_key(), subject, subject)
        .not_valid_before(_EPOCH)
        .not_valid_after(_after(now_ns, days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
    )
    certificate = builder.sign(key, hashes.SHA256())
    return Authority(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def issue_certificate(
    authority: Authority,
    csr_pem: bytes,
    uri: str,
    *,
    now_ns: int,
    days: int,
    dns_names: Sequence[str] = (),
    ip_addresses: Sequence[str] = (),
) -> bytes:
    """Sign a certificate for the key of a request and return it as PEM.

    With a DNS name or IP address it is a server certificate (which may act as a client); without, a client's.

    Args:
        authority: who signs.
        csr_pem: the request, PEM; only its key is taken over.
        uri: SPIFFE URI of the holder.
        now_ns: wall time, nanoseconds since the epoch.
        days: days from now that the certificate lasts.
        dns_names: names under which a server is reached.
        ip_addresses: addresses under which a server is reached.

    Raises:
        MalformedError: `bad-csr` when the request is not one, or does not prove possession of a P-256 key.
    """
    public_key = _requested_key(csr_pem)
    issuer = load_certificate(authority.certificate_pem)
    serves = bool(dns_names or ip_addresses)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if serves else [])]
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    names += [x509.DNSName(name) for name in dns_names]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ip_addresses]
    start = _EPOCH if serves else max(_EPOCH, _after(now_ns, 0) - _CLOCK_SKEW)
    builder = (
        _builder(public_key, issuer.subject, _subject(uri.rsplit("/", 1)[-1]))
        .not_valid_before(start)
        .not_valid_after(_after(now_ns, days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_issuer_key_id(issuer), critical=False)
    )
    signed = builder.sign(_private_key(authority.key_pem), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def load_certificate(certificate_pem: bytes) -> x509.Certificate:
    """Parse one PEM certificate, down to its key, its times and its extensions.

    Raises:
        MalformedError: `bad-certificate`.
    """
    if len(certificate_pem) > MAX_PEM_BYTES:
        raise MalformedError("bad-certificate", "the certificate is larger than any of ours")
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        # These are parsed when they are asked for; what cannot be is met here.
        certificate.public_key(), certificate.extensions, certificate.not_valid_after_utc
        return certificate
    except Exception as error:  # exotic versions, keys and names raise several unrelated classes
        raise MalformedError("bad-certificate", "the bytes are not a PEM certificate") from error


def certificate_fingerprint(certificate_pem: bytes) -> str:
    """Return SHA-256 of the certificate's DER form, 64 hexadecimal digits, as a person compares it.

    Raises:
        MalformedError: `bad-certificate`.
    """
    return load_certificate(certificate_pem).fingerprint(hashes.SHA256()).hex()


def certificate_expiry_ns(certificate_pem: bytes) -> int:
    """Return the last nanosecond since the epoch at which the certificate holds, to a second.

    Raises:
        MalformedError: `bad-certificate`.
    """
    return int(load_certificate(certificate_pem).not_valid_after_utc.timestamp()) * _NS_PER_S


def peer_identity(certificate_pem: bytes, federation: str | None = None) -> PeerIdentity:
    """Return who a certificate speaks for. Its chain was checked by TLS; this reads the name only.

    Args:
        certificate_pem: the peer's certificate.
        federation: when given, the trust domain that the name must belong to.

    Raises:
        MalformedError: `bad-certificate`.
        TrustError: `bad-identity` when it names no device or trustee, or one of another federation.
    """
    certificate = load_certificate(certificate_pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if len(uris) != 1:
        raise TrustError("bad-identity", "the certificate does not name exactly one peer")
    return _parse_spiffe(uris[0], federation)


def _parse_spiffe(uri: str, federation: str | None) -> PeerIdentity:
    refusal = TrustError("bad-identity", f"the certificate names {uri[:200]!r}, which is no device or trustee")
    try:
        parts = urlsplit(uri)
        empty, word, site, role_name, name = parts.path.split("/")
        role = _ROLES[role_name]
        check_id(site, "site")
        check_id(name, role)
    except (ValueError, KeyError, MalformedError):
        raise refusal from None
    if (parts.scheme, empty, word) != ("spiffe", "", "site") or parts.query or parts.fragment:
        raise refusal
    if federation is not None and parts.netloc != federation:
        raise TrustError("bad-identity", f"the certificate belongs to federation {parts.netloc[:MAX_ID_CHARS]!r}")
    return PeerIdentity(role, site, name)


def _requested_key(csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    if len(csr_pem) > MAX_PEM_BYTES:
        raise MalformedError("bad-csr", "the signing request is larger than any of ours")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        public_key = request.public_key()
        proven = request.is_signature_valid
    except Exception as error:  # exotic keys and algorithms raise several unrelated classes
        raise MalformedError("bad-csr", "the bytes are not a PEM signing request") from error
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or public_key.curve.name != "secp256r1":
        raise MalformedError("bad-csr", "the signing request is not for a P-256 key")
    if not proven:
        raise MalformedError("bad-csr", "the signing request does not prove possession of its key")
    return public_key


def _private_key(key_pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except Exception as error:  # exotic keys raise several unrelated classes
        raise ConfigError("key-format", "the TLS key is not an unencrypted PEM key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("key-format", "the TLS key is not an elliptic-curve key")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:MAX_ID_CHARS])])


def _after(now_ns: int, days: int) -> datetime:
    return _EPOCH + timedelta(seconds=now_ns // _NS_PER_S, days=days)


def _builder(public_key: ec.EllipticCurvePublicKey, issuer: x509.Name, subject: x509.Name) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _issuer_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
