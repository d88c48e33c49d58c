"""One second of one stream as bytes: delta, byte shuffle, zlib.

Neighbouring samples differ little: differences per channel (modulo 2**bits) make small numbers, and grouping their
bytes by significance makes long runs that zlib packs. float32 goes through its bit pattern, so that the round trip is
exact for every value, NaN payloads included.
"""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np

from bedside.core.errors import MalformedError
from bedside.core.limits import MAX_CHANNELS
from bedside.core.samples import Samples

MAX_PART_SAMPLES: Final = 100_000
"""Samples per channel of one part: one second at 100 kHz."""
MAX_PART_BYTES: Final = 16 << 20
"""Bytes of one part before compression."""

_LEVEL: Final = 6
_ITEM_BYTES: Final = {"int16": 2, "int32": 4, "float32": 4}


def most_samples(values: Samples) -> int:
    """Samples per channel that a part may hold of signal with the channels and the dtype of `values`."""
    row_bytes: int = values.shape[1] * values.dtype.itemsize
    return min(MAX_PART_SAMPLES, MAX_PART_BYTES // row_bytes)


def encode_samples(values: Samples) -> bytes:
    """Pack `values` of shape (samples, channels), int16, int32 or float32.

    Raises:
        MalformedError: `blob-format` outside the limits.
    """
    samples, channels = _checked_shape(values.shape[0], values.shape[1], values.dtype.name)
    bits = np.ascontiguousarray(values).view(f"<u{values.dtype.itemsize}")
    delta = np.diff(bits, axis=0, prepend=np.zeros((1, channels), bits.dtype))
    by_channel = np.ascontiguousarray(delta.T).view(np.uint8).reshape(samples * channels, -1)
    return zlib.compress(np.ascontiguousarray(by_channel.T).tobytes(), _LEVEL)


def decode_samples(data: bytes, samples: int, channels: int, dtype: str) -> Samples:
    """Unpack what `encode_samples` packed: shape (samples, channels), exactly.

    Raises:
        MalformedError: `blob-format`; nothing beyond the announced size is allocated.
    """
    _checked_shape(samples, channels, dtype)
    itemsize = _ITEM_BYTES[dtype]
    size = samples * channels * itemsize
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(data, size)
        complete = len(plain) == size and (unpacker.eof or (not unpacker.decompress(unpacker.unconsumed_tail, 1)))
    except zlib.error as error:
        raise MalformedError("blob-format", "a signal blob does not unpack") from error
    if not complete or not unpacker.eof or unpacker.unused_data:
        raise MalformedError("blob-format", "a signal blob has another length than it says")
    shuffled = np.frombuffer(plain, np.uint8).reshape(itemsize, samples * channels)
    delta = np.ascontiguousarray(shuffled.T).view(f"<u{itemsize}").reshape(channels, samples)
    bits = np.add.accumulate(delta, axis=1, dtype=delta.dtype)
    values: Samples = np.ascontiguousarray(bits.T).view(f"<{dtype[0]}{itemsize}").astype(dtype, copy=False)
    return values


def _checked_shape(samples: int, channels: int, dtype: str) -> tuple[int, int]:
    if dtype not in _ITEM_BYTES:
        raise MalformedError("blob-format", "a signal blob holds int16, int32 or float32")
    if not (1 <= samples <= MAX_PART_SAMPLES and 1 <= channels <= MAX_CHANNELS):
        raise MalformedError("blob-format", "a signal blob has an impossible shape")
    if samples * channels * _ITEM_BYTES[dtype] > MAX_PART_BYTES:
        raise MalformedError("blob-format", f"a signal blob exceeds {MAX_PART_BYTES} bytes")
    return samples, channels
