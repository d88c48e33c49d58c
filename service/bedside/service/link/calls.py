"""How many calls a server takes at a time, in all and from one peer; a call that waits for news is no load.

Invariants:
    * A waiting call costs a little memory and no place: however many devices wait, heartbeats pass.
    * One peer cannot take the places of all: what it has open is bounded by its certificate, on whatever connections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import grpc

from bedside.core.errors import UnavailableError

MAX_CALLS: Final = 2_000
"""Calls at a time in one server that do not wait; further ones are refused at once."""

MAX_OPEN_CALLS: Final = 20_000
"""Calls at a time in one server with those that wait: two for each of 5,000 devices, and as many again."""

MAX_CALLS_OF_PEER: Final = 32
"""Calls at a time of one client certificate: a device has five at most, a trustee ten."""

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[object, object]


class CallLimit:
    """The places of one server. Use from its event loop only.

    Attributes:
        busy: calls that take a place now.
    """

    def __init__(self, max_calls: int = MAX_CALLS, max_calls_of_peer: int = MAX_CALLS_OF_PEER) -> None:
        self._max_calls = max_calls
        self._max_calls_of_peer = max_calls_of_peer
        self._peers: Counter[bytes] = Counter()
        self.busy = 0

    @contextmanager
    def place(self, context: Context) -> Iterator[None]:
        """Hold a place for one call.

        Raises:
            UnavailableError: `peer-busy`.
        """
        peer = b"".join(context.auth_context().get("x509_pem_cert", []))
        if self.busy >= self._max_calls:
            raise UnavailableError("peer-busy", "too many calls at a time are open here", remedy="try again later")
        if peer and self._peers[peer] >= self._max_calls_of_peer:
            raise UnavailableError("peer-busy", "this machine has too many calls open", remedy="end some of them first")
        _OWN_PLACE.set(self)
        self.busy += 1
        self._peers[peer] += 1
        try:
            yield
        finally:
            self.busy -= 1
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]


@contextmanager
def waiting() -> Iterator[None]:
    """Give the place of the own call to others while it waits for news; outside of a call this does nothing."""
    limit = _OWN_PLACE.get()
    if limit is None:
        yield
        return
    limit.busy -= 1
    try:
        yield
    finally:
        limit.busy += 1


_OWN_PLACE: Final[ContextVar[CallLimit | None]] = ContextVar("own-place", default=None)
