"""Framing of HL7 v2 messages on a stream of bytes: 0x0B, the message, 0x1C, 0x0D.

Senders of the field leave out the start byte, end with LF in place of CR or with neither, and put several messages
into one segment of TCP; all of that is read. What does not begin as a message is no HL7, and nothing is looked for
behind it.

Source: HL7 Version 2 Transport Specification: MLLP, Release 1.
"""

from __future__ import annotations

from typing import Final

from bedside.core.errors import MalformedError

START: Final = 0x0B
END: Final = 0x1C
MAX_MESSAGE_BYTES: Final = 1 << 20
"""Bytes of one message: ten seconds of twelve leads at 500 Hz take about 300 KiB."""

_BETWEEN: Final = b"\r\n"
_BEGINS: Final = b"MSH"


def frame(message: bytes) -> bytes:
    """A message as it goes onto the wire."""
    return b"\x0b" + message + b"\x1c\r"


class MllpDecoder:
    """Finds the messages in what a connection delivers, in pieces of any size.

    Attributes:
        broken: messages that began and were never ended, because another one began.
        fault: why nothing more can be read; None while it can.
    """

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """Begin.

        Args:
            max_bytes: of one message.
        """
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._inside = False
        self.broken = 0
        self.fault: MalformedError | None = None

    @property
    def inside(self) -> bool:
        """Whether a message has begun that has not ended."""
        return self._inside or bool(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes.

        Raises:
            MalformedError: `mllp-size`, or `mllp-noise`: what follows can no longer be told apart. Messages that were
                complete before are returned first: then `fault` says it, and the next call raises it.
        """
        found: list[bytes] = []
        try:
            self._read(data, found)
        except MalformedError as error:
            self.fault = error
            if not found:
                raise
        return found

    def _read(self, data: bytes, found: list[bytes]) -> None:
        if self.fault is not None:
            raise self.fault
        at = 0
        while at < len(data):
            if not self._inside:
                at = self._begin(data, at)
                continue
            end = data.find(END, at)
            self._take(data, at, len(data) if end < 0 else end)
            if end < 0:
                break
            found.append(bytes(self._held))
            self._held.clear()
            self._inside = False
            at = end + 1

    def _begin(self, data: bytes, at: int) -> int:
        """Look for a message's first byte; return where to read on."""
        if not self._held and data[at] in _BETWEEN:
            return at + 1
        if not self._held and data[at] == START:
            self._inside = True
            return at + 1
        self._held.append(data[at])
        if not _BEGINS.startswith(self._held):
            raise MalformedError("mllp-noise", "what a peer sends is no HL7: it does not begin with MSH")
        self._inside = len(self._held) == len(_BEGINS)
        return at + 1

    def _take(self, data: bytes, at: int, end: int) -> None:
        start = data.rfind(START, at, end)
        if start >= 0:  # another one begins in its midst
            self.broken += data.count(START, at, end) if self._held or start > at else 0
            self._held.clear()
            at = start + 1
        if len(self._held) + end - at > self._max_bytes:
            raise MalformedError("mllp-size", f"a message exceeds {self._max_bytes} bytes")
        self._held += data[at:end]
