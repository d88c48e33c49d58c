"""The identity directory of a device or trustee: its keys, what it pinned, and what was issued to it.

Invariants:
    * The directory has mode 0700 and every file in it 0600; a key file that others may read is refused, not repaired.
    * Keys are made here and never leave; nothing overwrites them. A re-imaged machine is a new identity.
    * A sequence number is durable before it is used: after any crash the next one is higher than all before.

Source: DESIGN section 7.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Final

import msgspec
from nacl.signing import SigningKey

from bedside.core.clock import Entropy
from bedside.core.errors import ConfigError, MalformedError, TrustError
from bedside.core.limits import MAX_SIGNED_BYTES
from bedside.core.signing.envelope import parse_strict
from bedside.core.signing.trust import VerifiedCredential, fingerprint, open_credential, open_federation, subject_of
from bedside.core.unreadable import UNREADABLE
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.enrolment_pb2 import EnrolRequest
from bedside.proto.v1.identity_pb2 import Federation, Role
from bedside.service.files import read_private, write_durable
from bedside.service.keys import create_secret, create_signing_key, load_secret, load_signing_key

DIRECTORY_NAME: Final = "identity"
SECRET_BYTES: Final = 32
"""Bytes of `device.secret` and `buffer.key`."""

SEQUENCE_BLOCK: Final = 256
"""Sequence numbers made durable at a time: one disk write per so many messages."""

_MAX_FILE_BYTES: Final = MAX_SIGNED_BYTES
_DEVICE_SECRETS: Final = ("device.secret", "buffer.key")
_DAMAGE: Final = frozenset({"key-missing", "key-size"})
"""What happens to a key file; that others may use it is somebody's mistake."""


class Pins(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What this machine decided to believe when it was set up. Keys and digests are lower-case hex."""

    federation: str
    root_pk: str
    authority_pk: str
    ca_digest: str
    site: str
    enrolment_address: str
    service_address: str = ""


class Identity:
    """The files of one `<state_dir>/identity/`, read when they are asked for."""

    def __init__(self, directory: Path, role: Role.ValueType) -> None:
        self.directory = directory
        self.role = role

    @property
    def signing_key(self) -> SigningKey:
        """Ed25519 key of everything this machine says. Raises ConfigError `key-missing`, `key-mode`."""
        return load_signing_key(self._path("sign.key"))

    @property
    def sign_pk(self) -> bytes:
        """Public half of `signing_key`, 32 bytes."""
        return bytes(self.signing_key.verify_key)

    @property
    def subject(self) -> str:
        """Pseudonymous id that follows from the key."""
        return subject_of(self.role, self.sign_pk)

    @property
    def fingerprint(self) -> str:
        """What a person at the site compares before approving."""
        return fingerprint(self.sign_pk)

    @property
    def tls_key_pem(self) -> bytes:
        """P-256 key of the link, PKCS 8 PEM."""
        return read_private(self._path("tls.key"), _MAX_FILE_BYTES)

    @property
    def tls_key_digest(self) -> bytes:
        """SHA-256 of the DER SubjectPublicKeyInfo of the TLS key, 32 bytes. Loads X.509 code (10 MB)."""
        from cryptography.hazmat.primitives import serialization

        key = serialization.load_pem_private_key(self.tls_key_pem, password=None)
        spki = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(spki).digest()

    @property
    def device_secret(self) -> bytes:
        """32 bytes that hedge ephemeral keys (device only)."""
        return load_secret(self._path("device.secret"), SECRET_BYTES)

    @property
    def pins(self) -> Pins:
        """What was pinned. Raises ConfigError `not-enrolled` or `bad-pins`."""
        data = self._require("pins.json")
        try:
            pins = msgspec.json.decode(data, type=Pins)
            for text in (pins.root_pk, pins.authority_pk, pins.ca_digest):
                if len(bytes.fromhex(text)) != SECRET_BYTES:
                    raise ValueError("a key or digest has not 32 bytes")
            return pins
        except (*UNREADABLE, ValueError) as error:
            path = self._path("pins.json")
            raise ConfigError("bad-pins", f"{path} is damaged: {error}", remedy="restore it, or enrol again") from error

    @property
    def signed_federation(self) -> Signed:
        """The newest federation document, as stored."""
        return parse_strict(Signed, self._require("federation.bin"))

    @property
    def federation(self) -> Federation:
        """The newest federation document, verified against the pinned root."""
        return open_federation(self.signed_federation, bytes.fromhex(self.pins.root_pk))

    @property
    def ca_pem(self) -> bytes:
        """The CA that signs the coordinator's and our certificates, PEM."""
        return self._require("ca.pem")

    @property
    def certificate_pem(self) -> bytes | None:
        """Our certificate, leaf first, PEM; None while none was issued."""
        return self._optional("tls.crt")

    @property
    def request(self) -> EnrolRequest | None:
        """The credential request that was made and maybe sent; None when there is none."""
        data = self._optional("request.bin")
        return None if data is None else parse_strict(EnrolRequest, data)

    @property
    def credential(self) -> VerifiedCredential | None:
        """Our credential, checked against the pinned authority; None while none was issued."""
        data = self._optional("credential.bin")
        try:
            return None if data is None else self.check_credential(parse_strict(Signed, data))
        except (MalformedError, TrustError) as error:
            if error.code == "other-credential":  # it knows better what to do
                raise
            raise ConfigError(
                "bad-credential",
                f"{self._path('credential.bin')} does not hold: {error.sentence}",
                remedy="restore it, or enrol again",
            ) from error

    def require_credential(self) -> VerifiedCredential:
        """Our credential. Raises ConfigError `not-enrolled`."""
        credential = self.credential
        if credential is None:
            raise _not_enrolled(self.directory)
        return credential

    def check_credential(self, signed: Signed) -> VerifiedCredential:
        """Verify that a credential is for exactly this identity.

        Raises:
            TrustError: `bad-signature`, or `other-credential` when it names other keys, another role or site.
            MalformedError: when it is not well-formed.
        """
        pins = self.pins
        verified = open_credential(signed, bytes.fromhex(pins.authority_pk))
        ours = (self.sign_pk, self.role, pins.site, pins.federation)
        told = verified.credential
        if (told.sign_pk, told.role, told.site, told.federation) != ours:
            raise TrustError(
                "other-credential",
                f"the credential of {told.subject} is not for the key in {self.directory}",
                remedy="enrol again with a new token, or restore the identity directory as a whole",
            )
        return verified

    def save_pins(self, pins: Pins) -> None:
        """Store `pins`; they may be completed but the root, the authority and the site never change.

        Raises:
            ConfigError: `pins-differ`.
        """
        if self._path("pins.json").exists():
            old = self.pins
            if (old.federation, old.root_pk, old.authority_pk, old.site) != (
                pins.federation,
                pins.root_pk,
                pins.authority_pk,
                pins.site,
            ):
                raise ConfigError(
                    "pins-differ",
                    f"{self.directory} belongs to site {old.site} of federation {old.federation}",
                    remedy="use a new state directory for another site or federation",
                )
        self._write("pins.json", msgspec.json.format(msgspec.json.encode(pins), indent=2))

    @property
    def is_pinned(self) -> bool:
        """Whether this machine has decided what to believe."""
        return self._path("pins.json").exists()

    def forget(self) -> None:
        """Unpin a machine whose enrolment came to nothing, so that another site's token may be used. Keys stay.

        Raises:
            ConfigError: `pins-differ` when a credential was issued: then it belongs where it is.
        """
        if self._path("credential.bin").exists():
            raise ConfigError("pins-differ", f"{self.directory} is enrolled", remedy="use a new state directory")
        for name in ("request.bin", "federation.bin", "ca.pem", "pins.json"):
            self._path(name).unlink(missing_ok=True)

    def save_federation(self, signed: Signed) -> Federation:
        """Verify and store a federation document that is not older than the stored one.

        Raises:
            TrustError: `bad-signature`, `federation-rollback` or `federation-fork`.
        """
        root_pk = bytes.fromhex(self.pins.root_pk)
        if not self._path("federation.bin").exists():
            federation = open_federation(signed, root_pk)
            self._write("federation.bin", signed.SerializeToString(deterministic=True))
            return federation
        stored, known = self.signed_federation, self.federation
        federation = open_federation(signed, root_pk, min_version=known.version)
        if signed.payload != stored.payload:
            if federation.version == known.version:
                raise TrustError(
                    "federation-fork", f"the federation has two different documents of version {known.version}"
                )
            self._write("federation.bin", signed.SerializeToString(deterministic=True))
        return federation

    def save_request(self, request: EnrolRequest) -> None:
        """Store a request before it is sent, so that a retry is the same request."""
        self._write("request.bin", request.SerializeToString(deterministic=True))

    def save_credential(self, signed: Signed) -> VerifiedCredential:
        """Verify and store our credential; the request that asked for it is then done."""
        verified = self.check_credential(signed)
        self._write("credential.bin", signed.SerializeToString(deterministic=True))
        return verified

    def save_ca(self, ca_pem: bytes) -> None:
        """Store the CA that was checked against the pinned digest."""
        self._write("ca.pem", ca_pem)

    def save_certificate(self, certificate_pem: bytes) -> None:
        """Store a newly issued certificate chain."""
        self._write("tls.crt", certificate_pem)

    def check_keys(self) -> None:
        """Read every key once, but the buffer's, which may lie elsewhere.

        Raises:
            ConfigError: `key-missing`, `key-mode`, `key-owner` or `key-size`.
        """
        load_signing_key(self._path("sign.key"))
        read_private(self._path("tls.key"), _MAX_FILE_BYTES)
        if self.role == Role.ROLE_DEVICE:
            load_secret(self._path("device.secret"), SECRET_BYTES)

    def sequence(self) -> SequenceNumbers:
        """The counter of signed messages. One per process and identity."""
        return SequenceNumbers(self._path("sequence"))

    def _path(self, name: str) -> Path:
        return self.directory / name

    def _write(self, name: str, data: bytes) -> None:
        write_durable(self._path(name), data)

    def _optional(self, name: str) -> bytes | None:
        path = self._path(name)
        return read_private(path, _MAX_FILE_BYTES) if path.exists() else None

    def _require(self, name: str) -> bytes:
        data = self._optional(name)
        if data is None:
            raise _not_enrolled(self.directory)
        return data


class SequenceNumbers:
    """Strictly increasing numbers, made durable a block at a time before the first of the block is used.

    The file holds the highest number that may have been used, in decimal digits.
    """

    def __init__(self, path: Path, block: int = SEQUENCE_BLOCK) -> None:
        self._path = path
        self._block = block
        self._last = self._durable = _read_ceiling(path)

    def next(self) -> int:
        """The next number, from 1. Raises StoreError when it could not be made durable."""
        if self._last >= self._durable:
            write_durable(self._path, b"%d" % (self._last + self._block))
            self._durable = self._last + self._block
        self._last += 1
        return self._last


def create_identity(directory: Path, role: Role.ValueType, entropy: Entropy) -> Identity:
    """Make the directory and its keys; keys that are there already are kept, so that an interrupted call may repeat.

    Raises:
        ConfigError: `key-mode` and the like when what is there is not private.
        StoreError: `file-write`.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_directory(directory)
    if not (directory / "sign.key").exists():
        create_signing_key(directory / "sign.key", entropy)
    if not (directory / "tls.key").exists():
        from bedside.service.tls import create_tls_key

        create_tls_key(directory / "tls.key")
    for name in _DEVICE_SECRETS if role == Role.ROLE_DEVICE else ():
        if not (directory / name).exists():
            create_secret(directory / name, SECRET_BYTES, entropy)
    return open_identity(directory, role)


def open_identity(directory: Path, role: Role.ValueType) -> Identity:
    """Open an identity and check that its directory and keys are private.

    Raises:
        ConfigError: `not-enrolled`, `directory-mode`, `key-missing`, `key-mode` or `key-size`.
    """
    identity = find_identity(directory, role)
    identity.check_keys()
    return identity


def find_identity(directory: Path, role: Role.ValueType) -> Identity:
    """Open an identity whose directory and files are private; a key that is damaged is met where it is used.

    Raises:
        ConfigError: `not-enrolled`, `directory-mode`, `key-mode` or `key-owner`.
    """
    if not directory.is_dir():
        raise _not_enrolled(directory)
    _check_directory(directory)
    for name in ("sign.key", "tls.key", *_DEVICE_SECRETS):
        try:
            read_private(directory / name, _MAX_FILE_BYTES)
        except ConfigError as error:
            if error.code not in _DAMAGE:
                raise
    return Identity(directory, role)


def _check_directory(directory: Path) -> None:
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(
            "directory-mode",
            f"the identity directory {directory} has mode {mode:04o}, so that others may look inside",
            remedy=f"chmod 700 {directory}",
        )


def _read_ceiling(path: Path) -> int:
    if not path.exists():
        return 0
    text = read_private(path, 32)
    if not text.isdigit():
        raise MalformedError("bad-sequence", f"{path} does not hold a number", remedy="enrol again to get a new key")
    return int(text)


def _not_enrolled(directory: Path) -> ConfigError:
    return ConfigError(
        "not-enrolled",
        f"there is no complete identity in {directory}",
        remedy="enrol this machine with a token of `bedside site token`",
    )
