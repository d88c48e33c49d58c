"""Sends HL7 v2 messages over MLLP, one at a time, each with its acknowledgement."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from bedside.agent.client_tls import ClientTls, client_context
from bedside.agent.formats.hl7.acknowledgement import Acknowledgement, read_ack
from bedside.agent.formats.hl7.message import read_head
from bedside.agent.formats.hl7.mllp import MllpDecoder, frame
from bedside.core.errors import MalformedError, UnavailableError
from bedside.service.link.address import Address

TIMEOUT_S: Final = 30.0
MAX_ANSWER_BYTES: Final = 64 << 10
_READ_BYTES: Final = 16 << 10
_MAX_OTHERS: Final = 16
"""Answers to other messages that are passed over: one that timed out may still be answered."""


class MllpClient:
    """A connection that is made when it is needed, and kept."""

    def __init__(self, address: Address, tls: ClientTls | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        """Prepare; nothing is opened yet.

        Args:
            address: of the receiver.
            tls: None = not protected.
            timeout_s: for a connection, and for an answer.

        Raises:
            ConfigError: `mllp-tls`: a file cannot be used; `key-mode` and its like, see `read_private`.
        """
        self._address = address
        self._timeout_s = timeout_s
        self._context = client_context(tls, "mllp-tls") if tls is not None else None
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._busy = asyncio.Lock()

    async def send(self, message: bytes) -> Acknowledgement:
        """Send a message, and return what the receiver says to it, whatever that is.

        After an error nobody knows whether it arrived: send the same bytes again, under the same control id.

        Args:
            message: without framing; MSH-10 names it.

        Raises:
            MalformedError: it is no HL7.
            UnavailableError: `mllp-unreachable`, `mllp-unanswered`, `mllp-answer` (what came is no answer to it).
        """
        control_id = read_head(message).header.control_id
        async with self._busy:
            try:
                async with asyncio.timeout(self._timeout_s):
                    reader, writer = await self._connected()
                async with asyncio.timeout(self._timeout_s):
                    writer.write(frame(message))
                    await writer.drain()
                    return await self._answer(reader, control_id)
            except TimeoutError as error:
                self._drop()
                raise self._away("mllp-unanswered", f"does not answer within {self._timeout_s:g} s") from error
            except OSError as error:  # of TLS too
                self._drop()
                raise self._away("mllp-unreachable", f"cannot be reached: {error.strerror or error}") from error
            except MalformedError as error:
                self._drop()
                raise self._away("mllp-answer", f"answers with what is no HL7: {error.sentence}") from error
            except BaseException:
                self._drop()
                raise

    async def close(self) -> None:
        """End the connection, if there is one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream[1].close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await stream[1].wait_closed()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        stream = self._stream
        if stream is not None and (stream[0].at_eof() or stream[1].is_closing()):
            self._drop()
        if self._stream is None:
            self._stream = await asyncio.open_connection(self._address.host, self._address.port, ssl=self._context)
        return self._stream

    async def _answer(self, reader: asyncio.StreamReader, control_id: str) -> Acknowledgement:
        decoder = MllpDecoder(MAX_ANSWER_BYTES)
        others = 0
        while others <= _MAX_OTHERS:
            data = await reader.read(_READ_BYTES)
            if not data:
                raise ConnectionResetError("it closed the connection")
            for answer in map(read_ack, decoder.feed(data)):
                if answer.control_id == control_id:
                    return answer
                if not answer.control_id and not answer.accepted:  # it could not read which one
                    return answer
                others += 1
        raise MalformedError("hl7-ack", "these are answers to other messages")

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream[1].transport.abort()
            self._stream = None

    def _away(self, code: str, sentence: str) -> UnavailableError:
        return UnavailableError(code, f"{self._address} {sentence}", remedy="see whether the receiver listens there")
