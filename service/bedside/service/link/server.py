"""Servers: one address, TLS or mTLS, limits, and a graceful end."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import grpc

from bedside.core.errors import ConfigError, UnavailableError
from bedside.service.link.address import Address, check_insecure
from bedside.service.link.calls import MAX_OPEN_CALLS, CallLimit
from bedside.service.link.channel import KEEPALIVE_S, Option, message_options
from bedside.service.link.interceptor import ErrorInterceptor, unheard

HANDSHAKE_TIMEOUT_S: Final = 10
"""Seconds for TLS and HTTP/2 to be set up: silent sockets must not pile up."""

MAX_STREAMS: Final = 100
"""Calls at a time on one connection."""

IDLE_S: Final = 600
"""Seconds after which a connection without calls is closed: whoever polls never has one, whoever piles them up does."""

_SOCKET_MODE: Final = 0o660


@dataclass(frozen=True)
class ServerTls:
    """What a server needs for TLS.

    Attributes:
        certificate_pem: its certificate.
        key_pem: its private key.
        client_ca_pem: the CA that clients' certificates must come from (mTLS); empty to let anybody connect.
    """

    certificate_pem: bytes
    key_pem: bytes
    client_ca_pem: bytes = b""


class LinkServer:
    """A gRPC server that is bound when it starts.

    Register the servicers on `grpc` first: `add_FleetServicer_to_server(servicer, server.grpc)`.

    Attributes:
        grpc: the server that servicers are added to.
        port: where it listens, once started; 0 for a unix socket.
    """

    def __init__(
        self,
        address: Address,
        tls: ServerTls | None,
        *,
        insecure_loopback: bool = False,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
        limit: CallLimit | None = None,
        refused: Callable[[str], None] = unheard,
    ) -> None:
        """Prepare a server; `refused` hears the code of each call that is answered with an error.

        Raises:
            ConfigError: `tls-needed` or `insecure-address`.
        """
        if tls is None and not address.path:
            if not insecure_loopback:
                raise ConfigError("tls-needed", f"{address} needs TLS", remedy="name certificate and key")
            check_insecure(address)
        self._address = address
        self._tls = tls
        self.port = 0
        self.grpc = grpc.aio.server(
            interceptors=(ErrorInterceptor(limit or CallLimit(), refused), *interceptors),
            options=[*message_options(), *_server_options(handshake_timeout_s)],
            maximum_concurrent_rpcs=MAX_OPEN_CALLS,
        )

    async def start(self) -> int:
        """Bind, listen, and return the port.

        Raises:
            UnavailableError: `port-in-use`, `socket-in-use`, or `port-unusable` for every other reason.
        """
        if self._address.path:
            _claim_socket(Path(self._address.path))
        try:
            self.port = self._bind()
        except RuntimeError as error:
            raise _bind_error(self._address) from error
        if self._address.path:
            self.port = 0
            Path(self._address.path).chmod(_SOCKET_MODE)
        await self.grpc.start()
        return self.port

    def _bind(self) -> int:
        if self._tls is None or self._address.path:
            return self.grpc.add_insecure_port(self._address.target)
        credentials = grpc.ssl_server_credentials(
            [(self._tls.key_pem, self._tls.certificate_pem)],
            root_certificates=self._tls.client_ca_pem or None,
            require_client_auth=bool(self._tls.client_ca_pem),
        )
        return self.grpc.add_secure_port(self._address.target, credentials)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Take no new calls, let the running ones end for `grace_s` seconds, then cancel them."""
        await self.grpc.stop(grace_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()


def _server_options(handshake_timeout_s: float) -> list[Option]:
    return [
        ("grpc.so_reuseport", 0),  # with it, a second server would share the port and take half of the calls
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        # By default gRPC drops calls at random once 1,000 wait to be taken: 5,000 devices come back at once.
        ("grpc.server.max_pending_requests", MAX_OPEN_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_OPEN_CALLS),
        ("grpc.max_connection_idle_ms", IDLE_S * 1000),
        ("grpc.server_handshake_timeout_ms", int(handshake_timeout_s * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_S * 1000 // 2),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_S * 1000 // 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 2 * KEEPALIVE_S * 1000),
    ]


def _claim_socket(path: Path) -> None:
    """Refuse a unix socket that somebody serves; gRPC itself would take it away from them."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise _in_use(Address("", 0, str(path)))


def _bind_error(address: Address) -> UnavailableError:
    """Find out by the operating system's own words why gRPC could not bind."""
    reason = 0
    if not address.path:
        try:
            family, kind, *_, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
            with closing(socket.socket(family, kind)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
                probe.listen()
        except OSError as error:
            reason = error.errno or 0
    if reason == errno.EADDRINUSE:
        return _in_use(address)
    words = os.strerror(reason) if reason > 0 else "check address, certificate and key"
    return UnavailableError(
        "port-unusable", f"nothing can listen on {address}: {words}", remedy="choose another address or port"
    )


def _in_use(address: Address) -> UnavailableError:
    if address.path:
        remedy = "stop the program that serves it, or configure another socket"
        return UnavailableError("socket-in-use", f"the socket {address.path} is already in use", remedy=remedy)
    remedy = "stop the other program (ss -ltnp names it), or configure another port"
    return UnavailableError("port-in-use", f"port {address.port} of {address.host} is already in use", remedy=remedy)
