"""Client channels: TLS with one pinned CA, limits, keepalive, and waiting times between attempts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import grpc

from bedside.core.clock import Entropy
from bedside.core.errors import ConfigError
from bedside.core.limits import MAX_CHUNK_BYTES, MAX_SIGNED_BYTES
from bedside.service.link.address import Address, check_insecure

MAX_MESSAGE_BYTES: Final = max(MAX_SIGNED_BYTES, MAX_CHUNK_BYTES) + (64 << 10)
"""Bytes of one gRPC message: the largest signed message, or chunk of a blob, with its envelope."""

KEEPALIVE_S: Final = 60
"""Seconds of silence after which a client asks whether the peer is there: firewalls forget idle connections."""

KEEPALIVE_TIMEOUT_S: Final = 20
"""Seconds without an answer after which the connection counts as dead."""

MAX_RECONNECT_S: Final = 30
"""Seconds at most between two connection attempts inside one channel."""

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z ]+)-----\s[A-Za-z0-9+/=\s]+-----END \1-----")

Option = tuple[str, int | str]


@dataclass(frozen=True)
class ClientTls:
    """What a client needs for TLS.

    Attributes:
        ca_pem: the only CA that the peer's certificate may come from.
        certificate_pem: our certificate for mTLS; empty for server TLS alone.
        key_pem: its private key.
        server_name: the name to check instead of the address's host; empty for the host.
    """

    ca_pem: bytes
    certificate_pem: bytes = b""
    key_pem: bytes = b""
    server_name: str = ""


def message_options() -> list[Option]:
    """Return the limits that both ends of every link set."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_metadata_size", 16 << 10),
    ]


def open_channel(
    address: Address,
    tls: ClientTls | None,
    *,
    insecure_loopback: bool = False,
    max_reconnect_s: float = MAX_RECONNECT_S,
) -> grpc.aio.Channel:
    """Return a channel to `address`; it connects at its first call, and by itself again whenever it must.

    A unix socket needs no TLS: its file's permissions guard it. HTTP CONNECT proxies (`https_proxy`) are honoured,
    except for addresses of this machine.

    Raises:
        ConfigError: `insecure-address`, `tls-needed` or `bad-pem`.
    """
    options = [*message_options(), *_client_options(address, max_reconnect_s)]
    if address.path:
        return grpc.aio.insecure_channel(address.target, options=options)
    if tls is None:
        if not insecure_loopback:
            raise ConfigError("tls-needed", f"{address} needs TLS", remedy="name the CA that set-up printed")
        check_insecure(address)
        return grpc.aio.insecure_channel(address.target, options=options)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    _check_pem(tls)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=tls.ca_pem,
        private_key=tls.key_pem or None,
        certificate_chain=tls.certificate_pem or None,
    )
    return grpc.aio.secure_channel(address.target, credentials, options=options)


def _check_pem(tls: ClientTls) -> None:
    """Refuse what would end the process inside gRPC, which checks nothing before it asserts."""
    files = {"the CA": tls.ca_pem}
    if tls.certificate_pem or tls.key_pem:
        files |= {"the certificate": tls.certificate_pem, "the certificate's key": tls.key_pem}
    for what, pem in files.items():
        if not _PEM.search(pem):
            raise ConfigError(
                "bad-pem",
                f"the file of {what} is empty or damaged",
                remedy="restore the identity directory from its backup, or enrol again",
            )


def _client_options(address: Address, max_reconnect_s: float) -> list[Option]:
    longest_ms = int(max_reconnect_s * 1000)
    return [
        ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", min(1000, longest_ms)),
        ("grpc.min_reconnect_backoff_ms", min(5000, longest_ms)),
        ("grpc.max_reconnect_backoff_ms", longest_ms),
        ("grpc.enable_retries", 0),  # repeating is the journal's business: a resend sends the same bytes
        ("grpc.use_local_subchannel_pool", 1),  # two identities in one process must not share a connection
        ("grpc.enable_http_proxy", 0 if address.is_loopback else 1),
    ]


class Backoff:
    """Waiting times that double up to a cap, each drawn between half of its value and the whole.

    The randomness keeps a fleet from calling in step after an outage; the half keeps any one from hammering.
    """

    def __init__(self, entropy: Entropy, *, first_s: float = 1.0, cap_s: float = 300.0) -> None:
        self._entropy = entropy
        self._first_s = first_s
        self._cap_s = cap_s
        self._ceiling_s = first_s

    def next_s(self) -> float:
        """Return how many seconds to wait now, and wait longer the next time."""
        ceiling_s = min(self._ceiling_s, self._cap_s)
        self._ceiling_s = min(ceiling_s * 2, self._cap_s)
        fraction = int.from_bytes(self._entropy.token_bytes(4), "big") / 2**32
        return ceiling_s * (1 + fraction) / 2

    def reset(self) -> None:
        """Start again from the shortest time: the peer answered."""
        self._ceiling_s = self._first_s
