"""Packed samples: a stretch of a waveform as bare numbers, with the time of its first sample before them or none."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from bedside.agent.formats.tables.row_time import UNITS_NS
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.limits import MAX_CHANNELS
from bedside.core.samples import Samples, form_fault

MAX_PACKED_BYTES: Final = 256 << 10
"""Bytes of one stretch: 12 channels of 16 bit at 1 kHz for ten seconds."""

SampleType = Literal["int8", "uint8", "int16", "uint16", "int32", "float32"]
ByteOrder = Literal["little", "big"]

_KEPT: Final = {"int8": "int16", "uint8": "int16", "uint16": "int32"}
"""Types that a block has no place for, and the next larger one."""
_TIME_BYTES: Final = 8


class PackedForm:
    """One form of packed samples."""

    def __init__(
        self, dtype: SampleType, byte_order: ByteOrder, channels: int, rate_hz: float, time_unit: str = ""
    ) -> None:
        """Prepare.

        Args:
            dtype: of a number.
            byte_order: of numbers and of the time.
            channels: numbers per sample.
            rate_hz: samples per second and channel.
            time_unit: of an unsigned 64-bit integer before the samples, since 1970: `s`, `ms`, `us` or `ns`; empty =
                there is none.

        Raises:
            ConfigError: `packed-form`: no signal has this form.
        """
        self._order: ByteOrder = byte_order
        self._dtype = np.dtype(dtype).newbyteorder("<" if byte_order == "little" else ">")
        self._kept = np.dtype(_KEPT.get(dtype, dtype))
        self._channels = channels
        self._unit_ns = UNITS_NS[time_unit] if time_unit else 0
        if fault := form_fault(
            np.zeros((1, min(max(channels, 0), MAX_CHANNELS + 1)), self._kept), rate_hz, "", "", 1.0
        ):
            raise ConfigError("packed-form", fault, remedy="correct channels, rate_hz and dtype")

    def read(self, data: bytes) -> tuple[int | None, Samples]:
        """Time of the first sample in nanoseconds since 1970, None without one; and samples of shape (n, channels).

        Raises:
            MalformedError: `packed-size`.
        """
        head = _TIME_BYTES if self._unit_ns else 0
        row_bytes = self._channels * self._dtype.itemsize
        if not head < len(data) <= MAX_PACKED_BYTES or (len(data) - head) % row_bytes:
            raise MalformedError("packed-size", f"packed samples are whole rows of {row_bytes} bytes")
        time_ns = int.from_bytes(data[:head], self._order) * self._unit_ns if head else None
        values = np.frombuffer(data, self._dtype, offset=head).reshape(-1, self._channels)
        return time_ns, np.ascontiguousarray(values.astype(self._kept))
