"""How this device protects a connection to a hospital's system, where it is the client: options and TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from bedside.agent.kinds import option
from bedside.core.errors import ConfigError
from bedside.service.files import read_private

CaFile = Annotated[str, option("PEM file of the authorities to trust, else those of this system")]
CertificateFile = Annotated[str, option("PEM file of our certificate")]
KeyFile = Annotated[str, option("PEM file of its private key, of mode 0600")]
Plaintext = Annotated[bool, option("allow a connection to another machine without TLS: all on the way read and forge")]
"""Options `ca`, `client_certificate`, `client_key` and `plaintext` of every kind that connects to somebody."""

MAX_KEY_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class ClientTls:
    """What is believed, and what is shown.

    Attributes:
        ca: PEM file of the only authorities that are believed; None = those of this system.
        certificate: PEM file that we show; None = none.
        key: PEM file of its private key, of mode 0600.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def tls_fault(*, tls: bool, ca: str, certificate: str, key: str) -> str:
    """What contradicts itself in these options, in a sentence; empty for nothing.

    Args:
        tls: whether the connection is protected.
        ca: the option, empty = none; as the others.
        certificate: `client_certificate`.
        key: `client_key`.
    """
    if bool(certificate) != bool(key):
        return "client_certificate and client_key belong together"
    return "" if tls or not (ca or certificate) else "files of TLS mean nothing on a connection without TLS"


def tls_of(directory: Path, ca: str, certificate: str, key: str) -> ClientTls:
    """The options as paths; relative ones start at `directory`, and empty ones name no file."""
    return ClientTls(*(directory / name if name else None for name in (ca, certificate, key)))


def show_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Have a context show a certificate; its key must be private. Never asks a terminal for a password.

    Raises:
        ConfigError: `key-mode` and its like, see `read_private`.
        OSError: a file cannot be read, or the two do not belong together (SSLError).
        ValueError: a path with a null byte.
    """
    if key is not None:
        read_private(key, MAX_KEY_BYTES)
    context.load_cert_chain(certificate, key, password="")


def client_context(tls: ClientTls, code: str) -> ssl.SSLContext:
    """TLS 1.2 or later that checks the server's name; it reads files.

    Args:
        tls: what is believed and shown.
        code: of the error.

    Raises:
        ConfigError: `code`: a file cannot be used; `key-mode` and its like, see `read_private`.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            show_certificate(context, tls.certificate, tls.key)
    except (OSError, ValueError) as error:  # SSLError is the one, and a path with a null byte the other
        raise ConfigError(
            code,
            f"the certificates of a connection cannot be used: {getattr(error, 'strerror', None) or error}",
            remedy="name PEM files: of the authority, and of our certificate with its key",
        ) from error
    return context
