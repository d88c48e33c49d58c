"""The coordinator's state directory: its keys, its certificates, and the federation document that it serves.

Layout (0700): `coordinator.toml`, `coordinator.public.json` (for the root holder), `identity/` (sign.key, ca.key,
ca.pem, server.key, server.crt, pins.json, federation.bin), `coordinator.db`, `blobs/`, `operator.sock`.

Invariants:
    * Keys are made once, with mode 0600, and never overwritten.
    * A federation document is served only when the root key that was pinned at the first installation signed it, its
      version did not go back, and it names this coordinator's key and CA.
    * CA and server certificates start in 1970: a board without a clock must be able to connect.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from nacl.signing import SigningKey

from bedside.coordinator.config import FILE_NAME, CoordinatorConfig, InitAddresses, addresses_toml, default_toml
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import ConfigError, TrustError, UnavailableError
from bedside.core.limits import MAX_SIGNED_BYTES
from bedside.core.signing import open_federation, parse_strict
from bedside.core.unreadable import UNREADABLE
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import Federation
from bedside.service.config import DROP_IN_FOLDER
from bedside.service.files import private_opener, read_private, write_durable
from bedside.service.keys import create_signing_key, load_signing_key
from bedside.service.secret import read_secret
from bedside.service.tls import (
    CA_DAYS,
    Authority,
    certificate_fingerprint,
    create_ca,
    create_csr,
    create_tls_key,
    issue_certificate,
    load_tls_key,
)

PUBLIC_FILE: Final = "coordinator.public.json"
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_PUBLIC_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o700


class CoordinatorPublic(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What the root holder needs of a coordinator; hex."""

    sign_pk: str
    ca_digest: str


class RootPin(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The root that this coordinator serves; hex."""

    federation: str
    root_pk: str


class Home:
    """One state directory, read when asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._identity = directory / "identity"

    @property
    def config_path(self) -> Path:
        """The configuration file."""
        return self.directory / FILE_NAME

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        return self.directory / "coordinator.db"

    def password(self, config: CoordinatorConfig, environ: Mapping[str, str] = os.environ) -> Callable[[], str]:
        """What reads the password of the database; it raises ConfigError `secret-...`."""
        if not config.database_password:
            return str
        return partial(read_secret, self.directory, config.database_password, environ, option="database_password")

    @property
    def blobs_path(self) -> Path:
        """The folder of blobs."""
        return self.directory / "blobs"

    @property
    def sign_key(self) -> SigningKey:
        """Ed25519 key of plans and results. Raises ConfigError `key-missing`, `key-mode`."""
        return load_signing_key(self._identity / "sign.key")

    @property
    def authority(self) -> Authority:
        """The CA of the link. Raises MalformedError `bad-certificate`: without it no client is authenticated."""
        certificate_pem = self._read("ca.pem")
        certificate_fingerprint(certificate_pem)
        return Authority(certificate_pem, load_tls_key(self._identity / "ca.key"))

    @property
    def server_certificate_pem(self) -> bytes:
        """Server certificate, and the CA behind it so that a new device can compare it with its pin."""
        return self._read("server.crt")

    @property
    def server_key_pem(self) -> bytes:
        """Private key of the server certificate."""
        return load_tls_key(self._identity / "server.key")

    @property
    def public(self) -> CoordinatorPublic:
        """What the root holder signs into the federation document."""
        digest = certificate_fingerprint(self._read("ca.pem"))
        return CoordinatorPublic(sign_pk=bytes(self.sign_key.verify_key).hex(), ca_digest=digest)

    @property
    def pin(self) -> RootPin:
        """The pinned root. Raises ConfigError `no-federation` or `not-a-coordinator`."""
        try:
            pin = msgspec.json.decode(self._installed("pins.json"), type=RootPin)
            bytes.fromhex(pin.root_pk)
        except (*UNREADABLE, ValueError) as error:
            raise self._foreign("its pins are damaged") from error
        return pin

    @property
    def signed_federation(self) -> Signed:
        """The installed document. Raises ConfigError `no-federation`."""
        return parse_strict(Signed, self._installed("federation.bin"))

    @property
    def federation(self) -> Federation:
        """The installed document, verified against the pinned root."""
        return open_federation(self.signed_federation, bytes.fromhex(self.pin.root_pk))

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the directory for this process: two coordinators on one state would both plan.

        Raises:
            UnavailableError: `already-running`.
        """
        with open(self.directory / "coordinator.lock", "ab", opener=private_opener) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UnavailableError(
                    "already-running",
                    f"another coordinator runs on {self.directory}",
                    remedy="stop it first, or use another directory",
                ) from error
            yield

    @property
    def is_running(self) -> bool:
        """Whether a coordinator serves this directory now."""
        try:
            with self.claimed():
                return False
        except UnavailableError:
            return True

    def install(self, signed: Signed, root_pk: bytes | None) -> Federation:
        """Verify and store a federation document.

        Args:
            signed: the document.
            root_pk: the root key to pin at the first installation; later ones must agree with the pin.

        Raises:
            ConfigError: `not-a-coordinator`, `root-unknown`, or `root-differs`.
            TrustError: `bad-signature`, `federation-rollback` or `not-our-federation`.
        """
        if not (self.directory / PUBLIC_FILE).exists():
            raise self._foreign(f"it has no {PUBLIC_FILE}")
        known = self._known_version()
        if known:
            pinned = bytes.fromhex(self.pin.root_pk)
            if root_pk not in (None, pinned):
                raise ConfigError("root-differs", "another root key is pinned here", remedy="use a new directory")
            root_pk = pinned
        if root_pk is None:
            raise ConfigError(
                "root-unknown",
                "the first installation needs the federation's root key",
                remedy="keep the .public.json that `bedside federation sign` wrote beside it, or name --root-pk HEX",
            )
        federation = open_federation(signed, root_pk, min_version=known)
        self._check_ours(federation)
        pin = RootPin(federation=federation.federation, root_pk=root_pk.hex())
        self._write("pins.json", msgspec.json.encode(pin))
        self._write("federation.bin", signed.SerializeToString(deterministic=True))
        return federation

    def _check_ours(self, federation: Federation) -> None:
        ours = self.public
        told = federation.coordinator
        if (told.sign_pk.hex(), told.ca_digest.hex()) != (ours.sign_pk, ours.ca_digest):
            raise TrustError(
                "not-our-federation",
                "the federation document names another coordinator, or other keys of this one",
                remedy=f"restore this directory's keys, or sign the document again with its {PUBLIC_FILE}",
            )

    def _foreign(self, why: str) -> ConfigError:
        return ConfigError(
            "not-a-coordinator",
            f"{self.directory} is not a coordinator's directory: {why}",
            remedy="name the directory that `bedside coordinator init` made",
        )

    def _known_version(self) -> int:
        return self.federation.version if (self._identity / "federation.bin").exists() else 0

    def _installed(self, name: str) -> bytes:
        if not (self._identity / name).exists():
            raise ConfigError(
                "no-federation",
                f"no federation document is installed in {self.directory}",
                remedy="bedside coordinator install DIR federation.bin",
            )
        return self._read(name)

    def _read(self, name: str) -> bytes:
        return read_private(self._identity / name, MAX_SIGNED_BYTES)

    def _write(self, name: str, data: bytes) -> None:
        write_durable(self._identity / name, data)


def create_home(
    directory: Path,
    clock: Clock,
    entropy: Entropy,
    *,
    addresses: InitAddresses = InitAddresses(),  # noqa: B008  # a tuple is never changed
    names: Sequence[str] = LOOPBACK_NAMES,
) -> Home:
    """Make keys, certificates and the commented configuration of a new coordinator.

    Args:
        directory: made when absent.
        clock: for the certificates' end.
        entropy: for the signing key.
        addresses: for `coordinator.toml`, or for a drop-in beside one that is there: a package's lies in /etc, behind a
            link, and is an administrator's.
        names: DNS names and IP addresses under which the coordinator is reached.

    Raises:
        ConfigError: `key-exists` when there is a coordinator already.
        StoreError: `file-write`.
    """
    identity = directory / "identity"
    directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    identity.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
    create_signing_key(identity / "sign.key", entropy)
    authority = create_ca("Bedside coordinator CA", clock.now_ns())
    write_durable(identity / "ca.key", authority.key_pem)
    write_durable(identity / "ca.pem", authority.certificate_pem)
    certificate = _server_certificate(create_tls_key(identity / "server.key"), authority, clock, names)
    write_durable(identity / "server.crt", certificate + authority.certificate_pem)
    directory.chmod(_DIRECTORY_MODE)  # one that was there, once it is a coordinator's
    home = Home(directory)
    if home.config_path.exists():
        drop_in = directory / DROP_IN_FOLDER / "addresses.toml"
        drop_in.parent.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
        write_durable(drop_in, addresses_toml(addresses).encode(), _PUBLIC_MODE)
    else:
        write_durable(home.config_path, default_toml(*addresses).encode(), _PUBLIC_MODE)
    public = msgspec.json.format(msgspec.json.encode(home.public), indent=2)
    write_durable(directory / PUBLIC_FILE, public + b"\n", _PUBLIC_MODE)
    return home


def _server_certificate(key_pem: bytes, authority: Authority, clock: Clock, names: Sequence[str]) -> bytes:
    addresses = [name for name in names if ":" in name or name.replace(".", "").isdigit()]
    return issue_certificate(
        authority,
        create_csr(key_pem, "bedside-coordinator"),
        "spiffe://bedside/coordinator",
        now_ns=clock.now_ns(),
        days=CA_DAYS,
        dns_names=[name for name in names if name not in addresses],
        ip_addresses=addresses,
    )
