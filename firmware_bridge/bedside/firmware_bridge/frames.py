"""Frames on the wire of a sensor board: COBS(payload, CRC-16) 0x00.

`FrameParser` is sans-IO: bytes in, events out. It survives any garbage: memory is bounded by one frame, a bad
frame costs itself only (the next zero byte ends it), and whatever was lost is counted.

Sources: Cheshire and Baker, Consistent Overhead Byte Stuffing (1999); CRC-16/IBM-3740 (poly 0x1021, init
0xFFFF), little-endian on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cobs import cobs
from fastcrc import crc16

from bedside.core.errors import MalformedError
from bedside.firmware_bridge.messages import (
    MAX_PAYLOAD_BYTES,
    Hello,
    HelloRequest,
    Message,
    Samples,
    StreamInfo,
    decode_message,
    encode_message,
)

DELIMITER: Final = b"\0"
_CRC_BYTES: Final = 2
_BODY_BYTES: Final = MAX_PAYLOAD_BYTES + _CRC_BYTES
MAX_FRAME_BYTES: Final = _BODY_BYTES + _BODY_BYTES // 254 + 1
"""Longest stuffed frame, without its delimiter."""

_SEQ_MODULUS: Final = 1 << 32
_MAX_MISSED: Final = 1 << 16
"""A larger jump of a counter is a restart without hello, not a gap of so many messages."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of a stream that never arrived; the next samples of that stream follow.

    Attributes:
        stream: index into the hello's streams.
        missed: how many messages; 0 when the counter jumped and nobody can tell.
    """

    stream: int
    missed: int


Event = Hello | HelloRequest | Samples | Gap


@dataclass(slots=True)
class FrameCounts:
    """What a parser has seen since it was made."""

    received_bytes: int = 0
    frames: int = 0
    bad_stuffing: int = 0
    bad_crc: int = 0
    malformed: int = 0
    unannounced: int = 0
    oversize: int = 0
    missed_messages: int = 0

    @property
    def errors(self) -> int:
        """Frames that were thrown away."""
        return self.bad_stuffing + self.bad_crc + self.malformed + self.unannounced + self.oversize


def write_frame(message: Message) -> bytes:
    """Return `message` as one frame with its delimiter.

    Raises:
        MalformedError: `board-limit`.
    """
    payload = encode_message(message)
    checksum: int = crc16.ibm_3740(payload)
    stuffed: bytes = cobs.encode(payload + checksum.to_bytes(_CRC_BYTES, "little"))
    return stuffed + DELIMITER


class FrameParser:
    """Turns the bytes of one board, in pieces of any size, into events.

    Attributes:
        counts: frames and errors so far.
        hello: the board's last hello, None before the first.
    """

    def __init__(self) -> None:
        self.counts = FrameCounts()
        self.hello: Hello | None = None
        self._pending = bytearray()
        self._skipping = False
        self._expected_seq: dict[int, int] = {}

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes and return what they completed. Never raises."""
        self.counts.received_bytes += len(data)
        events: list[Event] = []
        *complete, rest = data.split(DELIMITER)
        for piece in complete:
            self._append(piece)
            if self._pending and not self._skipping:
                events += self._frame(bytes(self._pending))
            self._pending.clear()
            self._skipping = False
        self._append(rest)
        return events

    @property
    def pending_bytes(self) -> int:
        """Bytes held of an unfinished frame; at most MAX_FRAME_BYTES."""
        return len(self._pending)

    def _append(self, piece: bytes) -> None:
        if self._skipping:
            return
        if len(self._pending) + len(piece) > MAX_FRAME_BYTES:
            self.counts.oversize += 1
            self._skipping = True
            self._pending.clear()
            return
        self._pending += piece

    def _frame(self, stuffed: bytes) -> list[Event]:
        try:
            body = cobs.decode(stuffed)
        except cobs.DecodeError:
            self.counts.bad_stuffing += 1
            return []
        payload, checksum = body[:-_CRC_BYTES], body[-_CRC_BYTES:]
        if len(body) <= _CRC_BYTES or crc16.ibm_3740(payload) != int.from_bytes(checksum, "little"):
            self.counts.bad_crc += 1
            return []
        try:
            message = decode_message(payload, self._streams())
        except MalformedError as error:
            if error.code == "board-unannounced":
                self.counts.unannounced += 1
            else:
                self.counts.malformed += 1
            return []
        self.counts.frames += 1
        return self._accept(message)

    def _streams(self) -> tuple[StreamInfo, ...]:
        return self.hello.streams if self.hello is not None else ()

    def _accept(self, message: Message) -> list[Event]:
        if isinstance(message, Hello):
            if self.hello is None or message.boot_id != self.hello.boot_id:
                self._expected_seq.clear()
            self.hello = message
            return [message]
        if isinstance(message, Samples):
            gap = self._check_sequence(message)
            return [message] if gap is None else [gap, message]
        return [message]

    def _check_sequence(self, samples: Samples) -> Gap | None:
        expected = self._expected_seq.get(samples.stream)
        self._expected_seq[samples.stream] = (samples.seq + 1) % _SEQ_MODULUS
        if expected is None or samples.seq == expected:
            return None
        missed = (samples.seq - expected) % _SEQ_MODULUS
        if missed > _MAX_MISSED:
            missed = 0
        self.counts.missed_messages += missed
        return Gap(samples.stream, missed)
