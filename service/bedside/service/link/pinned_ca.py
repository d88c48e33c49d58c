"""The first handshake with a server whose CA is known by its digest only, through a proxy where there is one.

Nothing that the server shows is believed but a certificate with exactly the pinned SHA-256; whether that CA signed
the server's own certificate is then checked by the channel that trusts it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from bedside.core.errors import ConfigError, TrustError, UnavailableError
from bedside.service.link.address import Address, parse_address
from bedside.service.text import bounded

HANDSHAKE_TIMEOUT_S: Final = 10.0
_MAX_NAME_CHARS: Final = 120


async def fetch_ca(address: str, ca_digest: bytes, *, proxy: str | None = None) -> bytes:
    """Read the chain that `address` shows and return the certificate in it with SHA-256 `ca_digest`, as PEM.

    Args:
        address: host:port of either port.
        ca_digest: SHA-256 of the DER of the CA, 32 bytes.
        proxy: host:port of an HTTP CONNECT proxy; empty for none; None for what the environment says.

    Raises:
        UnavailableError: `coordinator-unreachable`.
        TrustError: `ca-mismatch`.
        ConfigError: `bad-address`, or as `proxy_for`.
    """
    where = parse_address(address)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is believed but the digest below
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            writer = await _connect(where, proxy_for(where) if proxy is None else proxy)
            await writer.start_tls(context, server_hostname=where.host)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, UnicodeError) as error:
        # The last one: a name that the resolver cannot write down (IDNA).
        raise _unreachable(address, str(error) or "no answer in time") from error
    try:
        chain = _shown_chain(writer.get_extra_info("ssl_object"))
    finally:
        writer.transport.abort()
    for der in chain:
        if hashlib.sha256(der).digest() == ca_digest:
            return ssl.DER_cert_to_PEM_cert(der).encode()
    raise ca_mismatch(address, _issuer(chain))


def proxy_for(where: Address, environ: Mapping[str, str] = os.environ) -> str:
    """The HTTP CONNECT proxy (host:port) that the environment names for this address; empty for none.

    The channel that follows asks gRPC's own code, which honours the same variables.

    Raises:
        ConfigError: `bad-proxy`; it does not hold the variable's text, in which there may be a password.
    """
    named = environ.get("https_proxy") or environ.get("HTTPS_PROXY") or ""
    excluded = [entry.strip().lstrip(".") for entry in environ.get("no_proxy", "").split(",") if entry.strip()]
    if where.is_loopback or any(where.host == entry or where.host.endswith(f".{entry}") for entry in excluded):
        return ""
    place = ""
    with suppress(ValueError):
        place = urlsplit(named if "//" in named else f"//{named}").netloc
    if (named and not place) or ("@" in named and "@" not in place):  # a / in a password ends the place too early
        raise ConfigError(
            "bad-proxy", "https_proxy names no proxy that can be", remedy="write http://HOST:PORT into it"
        )
    return place.rpartition("@")[2]


async def _connect(where: Address, proxy: str) -> asyncio.StreamWriter:
    """A TCP stream to `where`, through `proxy` when there is one (RFC 9110, section 9.3.6)."""
    through = parse_address(proxy) if proxy else where
    reader, writer = await asyncio.open_connection(through.host, through.port)
    if proxy:
        try:
            writer.write(f"CONNECT {where.target} HTTP/1.1\r\nHost: {where.target}\r\n\r\n".encode())
            status = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)[0]
            if status.split(b" ")[1:2] != [b"200"]:
                raise ConnectionRefusedError(f"the proxy {proxy} answered {status[:60].decode('latin-1')!r}")
        except BaseException:
            writer.transport.abort()
            raise
    return writer


def _shown_chain(connection: object) -> list[bytes]:
    """The DER certificates that the server sent. Public in Python 3.13; the same call is one layer down before."""
    read = getattr(connection, "get_unverified_chain", None)
    if read is not None:
        return [bytes(der) for der in read()]
    inner = connection._sslobj  # type: ignore[attr-defined]  # noqa: SLF001  # until 3.12 there is no public way
    return [ssl.PEM_cert_to_DER_cert(entry.public_bytes()) for entry in inner.get_unverified_chain()]


def pem_digest(certificate_pem: bytes) -> bytes:
    """SHA-256 of the DER form of a PEM certificate, 32 bytes: how a CA is pinned."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate_pem.decode())).digest()


def ca_mismatch(address: str, shown: str = "") -> TrustError:
    """The error of a peer that shows another CA; `shown` is what that calls itself, which anybody may."""
    instead = f" but one that calls itself {bounded(shown, _MAX_NAME_CHARS)!r}" if shown else ""
    return TrustError(
        "ca-mismatch",
        f"{address} does not show the certificate authority that was pinned{instead}",
        remedy="a TLS-inspecting proxy may stand in between: let this address pass it; or the coordinator was replaced",
    )


def _issuer(chain: list[bytes]) -> str:
    """Who says to have signed what was shown; empty where that cannot be read. Loads X.509 code (10 MB)."""
    from cryptography import x509

    with suppress(ValueError, IndexError, x509.InvalidVersion):
        return x509.load_der_x509_certificate(chain[0]).issuer.rfc4514_string()
    return ""


def _unreachable(address: str, why: str) -> UnavailableError:
    return UnavailableError(
        "coordinator-unreachable",
        f"the coordinator does not answer at {address}: {why[:200]}",
        remedy="check the address, that the coordinator runs, and that the firewall lets this port out",
    )
