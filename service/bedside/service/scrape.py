"""One page, `/metrics`, for a Prometheus that asks: plain HTTP on an address that was named, and nothing else.

Invariants:
    * It listens only where it is told to: never on all addresses of a machine.
    * A peer that is slow, or sends anything but a short request, costs a place for seconds and no more.

Source: RFC 9112, HTTP/1.1; Prometheus, exposition formats, text 0.0.4.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Final

from bedside.core.errors import BedsideError, MalformedError, UnavailableError
from bedside.service.link.address import parse_address
from bedside.service.logs import event
from bedside.service.metrics_config import MetricsConfig

PATH: Final = "/metrics"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MAX_REQUEST_BYTES: Final = 8 << 10
MAX_CONNECTIONS: Final = 8
MAX_WAITING: Final = 64
"""Connections with those that wait for a place; what comes beyond is ended at once, before files run out."""
REQUEST_TIMEOUT_S: Final = 5.0
"""For a request to come, and for its answer to be taken."""

_LOGGER: Final = logging.getLogger(__name__)
_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,1000}) HTTP/1\.[01]")
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


class ScrapeServer:
    """Answers with what `render` says at that moment.

    Attributes:
        port: where it listens, once started; 0 when it does not.
    """

    def __init__(self, config: MetricsConfig, render: Callable[[], bytes]) -> None:
        self._listen = config.listen
        self._render = render
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._open = 0
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen, if an address is configured.

        Raises:
            UnavailableError: `port-unusable`.
        """
        if not self._listen:
            return
        address = parse_address(self._listen)
        try:
            self._server = await asyncio.start_server(
                self._serve, address.host, address.port, limit=MAX_REQUEST_BYTES, backlog=MAX_CONNECTIONS
            )
        except OSError as error:
            raise UnavailableError(
                "port-unusable",
                f"metrics cannot be served on {address}: {error.strerror or error}",
                remedy="choose another address or port for metrics.listen",
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self, _grace_s: float = 0.0) -> None:
        """Take no more requests; an answer takes no time."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > MAX_WAITING:
                return
            async with asyncio.timeout(REQUEST_TIMEOUT_S), self._places:
                writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                writer.close()
                await writer.wait_closed()  # until the peer has taken it all
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            self._open -= 1
            writer.transport.abort()  # a peer that takes nothing would keep what is left for ever

    def _answer(self, request: bytes) -> bytes:
        try:
            method, path = read_request(request)
        except MalformedError:
            return _response(400)
        if path.partition("?")[0] != PATH:
            return _response(404)
        if method not in {"GET", "HEAD"}:
            return _response(405)
        try:
            page = self._render()
        except BedsideError as error:
            event(_LOGGER, "metrics-not-rendered", level=logging.WARNING, error=error)
            return _response(503)
        return _response(200, page, body=method == "GET")


def read_request(head: bytes) -> tuple[str, str]:
    """Method and path of a request, of which nothing else matters here.

    Raises:
        MalformedError: `bad-request`.
    """
    found = _REQUEST_LINE.fullmatch(head.partition(b"\r\n")[0]) if len(head) <= MAX_REQUEST_BYTES else None
    if found is None:
        raise MalformedError("bad-request", "this is no request of HTTP/1.1")
    return found[1].decode("ascii"), found[2].decode("ascii")


def _response(status: int, page: bytes = b"", *, body: bool = True) -> bytes:
    lines = (
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Content-Type: {CONTENT_TYPE}",
        f"Content-Length: {len(page)}",
        "Cache-Control: no-store",
        "Connection: close",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (page if body else b"")
