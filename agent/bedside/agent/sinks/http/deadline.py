"""One deadline for a whole exchange: connecting, sending, and every byte of the answer.

A socket's own timeout begins anew with each byte, so that a server that drips them holds a client for ever.
"""

from __future__ import annotations

import io
import socket
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from urllib3.connectionpool import HTTPConnectionPool

    from bedside.core.clock import Clock

_CONNECT_S: Final = 10.0
_SLICE_BYTES: Final = 16 << 10
"""What TLS sends at once; the time that is left is looked at between two."""


class Deadline:
    """When the exchange that is under way must be over. Use in one thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_s = 0.0

    def begin(self, within_s: float) -> None:
        """An exchange begins, and may take so long."""
        self._until_s = self._clock.monotonic_s() + within_s

    def left_s(self) -> float:
        """Seconds that are left.

        Raises:
            TimeoutError: none.
        """
        left_s = self._until_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise TimeoutError("the exchange takes too long")
        return left_s


class _BoundedReader(io.RawIOBase):
    """What a socket sends until the deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        self._sock.settimeout(self._deadline.left_s())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def bounded_pools(deadline: Deadline) -> dict[str, type[HTTPConnectionPool]]:
    """Pools of urllib3 by scheme, whose connections keep a deadline."""
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Response(HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
            super().__init__(sock, *args, **named)
            self.fp = io.BufferedReader(_BoundedReader(self.fp.detach(), sock, deadline))

    def bounded(base: type[Any]) -> type[Any]:
        class Bounded(base):  # type: ignore[misc]  # one of two classes
            response_class = Response

            def connect(self) -> None:
                self.timeout = min(_CONNECT_S, deadline.left_s())
                super().connect()

            def send(self, data: bytes) -> None:
                if self.sock is None:
                    self.connect()
                for start in range(0, len(data), _SLICE_BYTES):
                    self.sock.settimeout(deadline.left_s())
                    super().send(data[start : start + _SLICE_BYTES])

        return Bounded

    class Plain(HTTPConnectionPool):
        ConnectionCls = bounded(HTTPConnection)

    class Secure(HTTPSConnectionPool):
        ConnectionCls = bounded(HTTPSConnection)

    return {"http": Plain, "https": Secure}
