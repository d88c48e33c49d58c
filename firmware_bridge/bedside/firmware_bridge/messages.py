"""What a sensor board says: hello, samples; and what a host says: hello request.

Pure functions between bytes and messages. All integers are little-endian. The layout is in
docs/protocol/sensor-board.md; a board that speaks another protocol version is refused by name.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.errors import MalformedError

PROTOCOL_VERSION: Final = 1
MAX_PAYLOAD_BYTES: Final = 2_048
"""Bytes of one message: 40 ms of 16 channels at 1,500 Hz int16; an MCU can afford the buffer."""
MAX_STREAMS: Final = 16
MAX_CHANNELS: Final = 64
MAX_TEXT_BYTES: Final = 64
MAX_RATE_MILLI_HZ: Final = 100_000_000

_HELLO: Final = struct.Struct("<BBI")
_STREAM: Final = struct.Struct("<BIBf")
_SAMPLES: Final = struct.Struct("<BBIQB")

RawSamples = npt.NDArray[np.int16] | npt.NDArray[np.int32]


class Kind(IntEnum):
    """First byte of every message."""

    HELLO = 1
    SAMPLES = 2
    HELLO_REQUEST = 3


class SampleType(IntEnum):
    """How one value travels."""

    INT16 = 1
    INT32 = 2

    @property
    def dtype(self) -> np.dtype[np.int16] | np.dtype[np.int32]:
        """Little-endian numpy type of one value."""
        return np.dtype("<i2") if self is SampleType.INT16 else np.dtype("<i4")


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream of a board.

    Attributes:
        name: the board's own name of it.
        channels: values per sample.
        rate_milli_hz: samples per 1,000 seconds.
        sample_type: how one value travels.
        unit: UCUM code of a value times `scale`.
        metric: MDC reference id; empty when unknown.
        scale: physical value = value times `scale`.
    """

    name: str
    channels: int
    rate_milli_hz: int
    sample_type: SampleType
    unit: str
    metric: str
    scale: float

    @property
    def rate_hz(self) -> float:
        """Samples per second."""
        return self.rate_milli_hz / 1000

    @property
    def max_samples(self) -> int:
        """Most samples that fit one message."""
        room = MAX_PAYLOAD_BYTES - _SAMPLES.size
        return max(1, min(255, room // (self.channels * self.sample_type.dtype.itemsize)))


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a board is and what it sends.

    Attributes:
        boot_id: random per start of the board; a new one means that its clock and counters began again.
        board_id: serial number or name.
        firmware_version: of the board's program.
        streams: by stream index.
    """

    boot_id: int
    board_id: str
    firmware_version: str
    streams: tuple[StreamInfo, ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """Some samples of one stream.

    Attributes:
        stream: index into the hello's streams.
        seq: counts the messages of this stream since boot, modulo 2**32.
        clock_us: board clock at the first sample, microseconds since boot.
        values: shape (samples, channels), int16 or int32.
    """

    stream: int
    seq: int
    clock_us: int
    values: RawSamples


@dataclass(frozen=True, slots=True)
class HelloRequest:
    """A host asks the board for its hello, and tells it that somebody listens."""


Message = Hello | Samples | HelloRequest


def encode_message(message: Message) -> bytes:
    """Return the payload of `message`, without checksum and framing.

    Raises:
        MalformedError: `board-limit` when it cannot travel in one message.
    """
    if isinstance(message, HelloRequest):
        payload = bytes([Kind.HELLO_REQUEST, PROTOCOL_VERSION])
    elif isinstance(message, Hello):
        payload = _encode_hello(message)
    else:
        payload = _encode_samples(message)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MalformedError("board-limit", f"a message of {len(payload)} bytes exceeds {MAX_PAYLOAD_BYTES}")
    return payload


def _encode_samples(samples: Samples) -> bytes:
    count = samples.values.shape[0]
    if not 1 <= count <= 255:
        raise MalformedError("board-limit", f"a sample message holds 1 to 255 samples, not {count}")
    head = _SAMPLES.pack(Kind.SAMPLES, samples.stream, samples.seq, samples.clock_us, count)
    return head + samples.values.astype(samples.values.dtype.newbyteorder("<"), copy=False).tobytes()


def _encode_hello(hello: Hello) -> bytes:
    parts = [_HELLO.pack(Kind.HELLO, PROTOCOL_VERSION, hello.boot_id)]
    parts += [_encode_text(hello.board_id), _encode_text(hello.firmware_version), bytes([len(hello.streams)])]
    for stream in hello.streams:
        parts.append(_STREAM.pack(stream.channels, stream.rate_milli_hz, stream.sample_type, stream.scale))
        parts += [_encode_text(stream.name), _encode_text(stream.unit), _encode_text(stream.metric)]
    return b"".join(parts)


def _encode_text(text: str) -> bytes:
    data = text.encode()
    if len(data) > MAX_TEXT_BYTES:
        raise MalformedError("board-limit", f"a board's text of {len(data)} bytes exceeds {MAX_TEXT_BYTES}")
    return bytes([len(data)]) + data


def decode_message(payload: bytes, streams: tuple[StreamInfo, ...]) -> Message:
    """Return the message in `payload`; `streams` are those of the last hello.

    Raises:
        MalformedError: `board-message`, `board-version`, or `board-unannounced` for samples of a stream
            that no hello has named.
    """
    if len(payload) < 2:
        raise _malformed("is too short")
    if payload[0] == Kind.SAMPLES:
        return _decode_samples(payload, streams)
    if payload[0] not in (Kind.HELLO, Kind.HELLO_REQUEST):
        raise _malformed(f"has the unknown kind {payload[0]}")
    if payload[1] != PROTOCOL_VERSION:
        raise MalformedError(
            "board-version",
            f"the board speaks protocol {payload[1]}, this host {PROTOCOL_VERSION}",
            remedy="update the older of the two",
        )
    if payload[0] == Kind.HELLO:
        return _decode_hello(payload)
    if len(payload) != 2:
        raise _malformed("has trailing bytes")
    return HelloRequest()


def _decode_samples(payload: bytes, streams: tuple[StreamInfo, ...]) -> Samples:
    if len(payload) < _SAMPLES.size:
        raise _malformed("is too short")
    _, stream, seq, clock_us, count = _SAMPLES.unpack_from(payload)
    if stream >= len(streams):
        raise MalformedError("board-unannounced", f"samples of stream {stream} came before its hello")
    info = streams[stream]
    dtype = info.sample_type.dtype
    if count == 0 or len(payload) - _SAMPLES.size != count * info.channels * dtype.itemsize:
        raise _malformed("has samples of the wrong length")
    values = np.frombuffer(payload, dtype, offset=_SAMPLES.size).reshape(count, info.channels)
    return Samples(stream, seq, clock_us, values)


def _decode_hello(payload: bytes) -> Hello:
    reader = _Reader(payload)
    _, _, boot_id = reader.unpack(_HELLO)
    board_id, firmware_version = reader.text(), reader.text()
    count = reader.byte()
    if not 1 <= count <= MAX_STREAMS:
        raise _malformed(f"announces {count} streams")
    streams = tuple(_decode_stream(reader) for _ in range(count))
    if reader.offset != len(payload):
        raise _malformed("has trailing bytes")
    return Hello(boot_id, board_id, firmware_version, streams)


def _decode_stream(reader: _Reader) -> StreamInfo:
    channels, rate_milli_hz, sample_type, scale = reader.unpack(_STREAM)
    if not 1 <= channels <= MAX_CHANNELS or not 1 <= rate_milli_hz <= MAX_RATE_MILLI_HZ:
        raise _malformed("announces impossible channels or rate")
    if sample_type not in (SampleType.INT16, SampleType.INT32) or not math.isfinite(scale) or scale == 0:
        raise _malformed("announces an impossible sample type or scale")
    name, unit, metric = reader.text(), reader.text(), reader.text()
    return StreamInfo(name, channels, rate_milli_hz, SampleType(sample_type), unit, metric, scale)


class _Reader:
    """A cursor over a payload that never reads past its end."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.offset = 0

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        if self.offset + layout.size > len(self.payload):
            raise _malformed("is cut short")
        values = layout.unpack_from(self.payload, self.offset)
        self.offset += layout.size
        return values

    def byte(self) -> int:
        if self.offset >= len(self.payload):
            raise _malformed("is cut short")
        self.offset += 1
        return self.payload[self.offset - 1]

    def text(self) -> str:
        length = self.byte()
        data = self.payload[self.offset : self.offset + length]
        if length > MAX_TEXT_BYTES or len(data) != length:
            raise _malformed("has a text of the wrong length")
        self.offset += length
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise _malformed("has a text that is not UTF-8") from error
        if not text.isprintable():
            raise _malformed("has a text with control characters")
        return text


def _malformed(what: str) -> MalformedError:
    return MalformedError("board-message", f"a message of the board {what}")
