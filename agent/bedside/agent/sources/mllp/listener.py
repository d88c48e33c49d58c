"""Connections of senders of HL7: who may come, how many, how long, and what they may keep us waiting for.

Invariants:
    * What a connection costs is bounded before its first byte is read, and before a handshake of TLS begins.
    * A peer that has too many connections loses its own longest silent one; it takes none from others.
    * A message that has begun ends within `MESSAGE_S`, however slowly its bytes drip.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bedside.agent.formats.hl7.mllp import MllpDecoder
from bedside.core.clock import Clock
from bedside.core.errors import MalformedError, UnavailableError
from bedside.service.link.address import Address
from bedside.service.logs import event

if TYPE_CHECKING:
    from ssl import SSLContext

_LOGGER = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MESSAGE_S: Final = 30.0
"""Seconds from a message's first byte to its last, and to take an answer."""
HANDSHAKE_S: Final = 10.0
CONNECTIONS_OF_ONE_PEER: Final = 16
_READ_BYTES: Final = 64 << 10
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""A peer that was switched off is noticed after two minutes."""
_BACKLOG: Final = 128
_EXHAUSTED_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in.

    Attributes:
        address: where we listen.
        allow: networks of peers; empty = all.
        connections: at one time.
        idle_s: a connection that says nothing for so long is ended.
        message_bytes: of one message.
        tls: None = none.
    """

    address: Address
    allow: Sequence[Network]
    connections: int
    idle_s: float
    message_bytes: int
    tls: SSLContext | None


class Connection:
    """One sender.

    Attributes:
        peer: its address, without a port.
        active_s: monotonic time of its last bytes.
    """

    def __init__(self, peer: str, now_s: float) -> None:
        self.peer = peer
        self.active_s = now_s
        self.task: asyncio.Task[None] | None = None


Serve = Callable[[str, list[bytes]], Awaitable[list[bytes]]]
"""Takes the messages of a peer; gives what is sent to it, framed."""
Broken = Callable[[str, MalformedError | None, int], Awaitable[bytes]]
"""Hears of what a peer sent that is no message, and how many; gives what it is told before the end."""


class Listener:
    """Accepts connections and reads messages from them, until it is closed.

    Attributes:
        refused: connections that were not let in.
    """

    def __init__(self, door: Door, clock: Clock, serve: Serve, broken: Broken, changed: Callable[[], None]) -> None:
        """Prepare; nothing is opened yet.

        Args:
            door: where, and for whom.
            clock: for deadlines.
            serve: takes messages.
            broken: hears of what is none.
            changed: called when the listener is there, and when a connection comes or goes.
        """
        self._door = door
        self._clock = clock
        self._serve = serve
        self._broken = broken
        self._changed = changed
        self._connections: list[Connection] = []
        self.refused = 0

    @property
    def connections(self) -> int:
        """That are open."""
        return len(self._connections)

    async def run(self) -> None:
        """Listen until cancelled; connections end with it.

        Raises:
            UnavailableError: `mllp-listen`: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        with self._bound() as listening:
            self._changed()
            try:
                while True:
                    try:
                        accepted, address = await loop.sock_accept(listening)
                    except OSError:  # no file descriptor is left, or the peer has gone again
                        await asyncio.sleep(_EXHAUSTED_S)
                        continue
                    self._admit(accepted, str(address[0]))
            finally:
                await self._end()

    def _bound(self) -> socket.socket:
        host, port = self._door.address.host, self._door.address.port
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen(_BACKLOG)
            listening.setblocking(False)
        except OSError as error:
            listening.close()
            raise UnavailableError(
                "mllp-listen",
                f"{self._door.address} cannot be listened on: {error.strerror}",
                remedy="name an address of this machine, and a port above 1023 that nothing else has",
            ) from error
        return listening

    def _admit(self, accepted: socket.socket, peer: str) -> None:
        """Let a connection in, or close it at once."""
        own = [one for one in self._connections if one.peer == peer]
        address = ipaddress.ip_address(peer.partition("%")[0])
        known = not self._door.allow or any(address in network for network in self._door.allow)
        if known and len(own) >= min(CONNECTIONS_OF_ONE_PEER, self._door.connections):
            silent = min(own, key=lambda one: one.active_s)
            self._connections.remove(silent)
            if silent.task is not None:
                silent.task.cancel()
            self.refused += 1
        if not known or len(self._connections) >= self._door.connections:
            self.refused += 1
            accepted.close()
            self._changed()
            return
        accepted.setblocking(False)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                accepted.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        connection = Connection(peer, self._clock.monotonic_s())
        self._connections.append(connection)
        connection.task = asyncio.create_task(self._talk(connection, accepted), name=f"mllp {peer}")
        connection.task.add_done_callback(lambda task: self._forget(connection, accepted, task))
        self._changed()

    def _forget(self, connection: Connection, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        """A connection has ended; one that was cancelled at once has not even begun."""
        accepted.close()
        error = None if task.cancelled() else task.exception()
        if error is not None:  # a mistake of ours; its words may hold what was sent
            event(_LOGGER, "connection-failed", level=logging.ERROR, peer=connection.peer, reason=type(error).__name__)
        if connection in self._connections:
            self._connections.remove(connection)
            self._changed()

    async def _talk(self, connection: Connection, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        tls = self._door.tls
        transport: asyncio.Transport | None = None
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, accepted, ssl=tls, ssl_handshake_timeout=HANDSHAKE_S if tls is not None else None
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            await self._converse(connection, reader, writer)
        except OSError:  # of TLS and of time too: a peer that goes away, or cannot be understood, is its own affair
            pass
        finally:
            if transport is not None:
                transport.abort()

    async def _converse(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        decoder = MllpDecoder(self._door.message_bytes)
        wait_s, told_broken = self._door.idle_s, 0
        while True:
            began_s = self._clock.monotonic_s()
            async with asyncio.timeout(max(0.0, wait_s)):
                data = await reader.read(_READ_BYTES)
            if not data:
                return
            connection.active_s = self._clock.monotonic_s()
            was_inside, messages = decoder.inside, list[bytes]()
            with contextlib.suppress(MalformedError):  # `fault` says it, behind what was complete before
                messages = decoder.feed(data)
            if decoder.broken > told_broken:
                await self._broken(connection.peer, None, decoder.broken - told_broken)
                told_broken = decoder.broken
            if messages:
                await self._answer(writer, b"".join(await self._serve(connection.peer, messages)))
            if decoder.fault is not None:
                await self._answer(writer, await self._broken(connection.peer, decoder.fault, 1))
                return
            if not decoder.inside:
                wait_s = self._door.idle_s
            elif messages or not was_inside:
                wait_s = MESSAGE_S
            else:
                wait_s -= connection.active_s - began_s

    async def _answer(self, writer: asyncio.StreamWriter, answer: bytes) -> None:
        writer.write(answer)
        async with asyncio.timeout(MESSAGE_S):
            await writer.drain()

    async def _end(self) -> None:
        tasks = [one.task for one in self._connections if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
