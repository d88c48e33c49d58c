"""How this device protects a connection to a hospital's system, where it is the client."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bedside.core.errors import ConfigError
from bedside.service.files import read_private

if TYPE_CHECKING:
    from ssl import SSLContext

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


def client_context(tls: ClientTls, code: str) -> SSLContext:
    """TLS 1.2 or later that checks the server's name; it reads files.

    Args:
        tls: what is believed and shown.
        code: of the error.

    Raises:
        ConfigError: `code`: a file cannot be used; `key-mode` and its like, see `read_private`.
    """
    import ssl  # 3 MB that most devices do not need

    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            if tls.key is not None:
                read_private(tls.key, MAX_KEY_BYTES)
            context.load_cert_chain(tls.certificate, tls.key, password="")  # never asks a terminal
    except OSError as error:  # SSLError is one
        raise ConfigError(
            code,
            f"the certificates of a connection cannot be used: {error.strerror or error}",
            remedy="name PEM files: of the authority, and of our certificate with its key",
        ) from error
    return context
