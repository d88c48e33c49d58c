"""Samples of Linux industrial IO: the words that describe one, and the scans that a buffer delivers.

Source: Linux, Documentation/ABI/testing/sysfs-bus-iio (`scan_elements/*_type`, units of channels) and
Documentation/driver-api/iio/buffers.rst (each element lies at a multiple of its size, a scan at one of its largest).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.errors import MalformedError

MAX_ELEMENTS: Final = 64
"""Elements of a scan; the largest devices have 32 channels and a time."""
MAX_REPEAT: Final = 16

_FORM: Final = re.compile(r"(be|le):([su])(\d{1,3})/(\d{1,3})(?:X(\d{1,3}))?>>(\d{1,3})", re.ASCII)
_WORD_BITS: Final = (8, 16, 32, 64)
_MAX_NUMBER_CHARS: Final = 40

UNITS: Final = {
    "accel": ("m/s2", 1.0),
    "anglvel": ("rad/s", 1.0),
    "magn": ("G", 1.0),
    "voltage": ("mV", 1.0),
    "current": ("mA", 1.0),
    "power": ("mW", 1.0),
    "resistance": ("Ohm", 1.0),
    "pressure": ("kPa", 1.0),
    "temp": ("Cel", 1e-3),
    "humidityrelative": ("%", 1e-3),
    "illuminance": ("lx", 1.0),
}
"""UCUM unit of a channel's kind, and what makes it of the ABI's (milli-degrees, milli-percent); others have none."""


@dataclass(frozen=True, slots=True)
class SampleForm:
    """How one element of a scan is stored.

    Attributes:
        big_endian: order of its bytes.
        signed: two's complement.
        bits: that count.
        storage_bits: of a word, 8, 16, 32 or 64.
        shift: to the right, before the bits count.
        repeat: words in a row.
    """

    big_endian: bool
    signed: bool
    bits: int
    storage_bits: int
    shift: int
    repeat: int = 1

    @property
    def size_bytes(self) -> int:
        """All its words."""
        return self.storage_bits // 8 * self.repeat


def parse_form(text: str) -> SampleForm:
    """Read a `*_type` file, such as `le:s16/16>>4`.

    Raises:
        MalformedError: `bad-iio-type`.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise MalformedError("bad-iio-type", "a sample's form is such as le:s16/16>>4")
    endian, sign, *numbers = found.groups(default="1")
    bits, storage_bits, repeat, shift = (int(number) for number in numbers)
    if storage_bits not in _WORD_BITS or not 1 <= bits <= storage_bits - shift or not 1 <= repeat <= MAX_REPEAT:
        raise MalformedError("bad-iio-type", f"{bits} bits of {storage_bits}, {shift} lower, are no sample")
    if bits == _WORD_BITS[-1] and sign == "u":
        raise MalformedError("bad-iio-type", "64 bits without a sign do not fit")
    return SampleForm(endian == "be", sign == "s", bits, storage_bits, shift, repeat)


class ScanLayout:
    """Where the elements of a scan lie.

    Attributes:
        scan_bytes: of one scan.
        columns: first column of each element in what `decode` returns, and after them the number of columns.
    """

    def __init__(self, forms: Sequence[SampleForm]) -> None:
        """Lay out elements in the order of their index.

        Raises:
            MalformedError: `bad-iio-scan` for none, or for more than `MAX_ELEMENTS`.
        """
        if not 1 <= len(forms) <= MAX_ELEMENTS:
            raise MalformedError("bad-iio-scan", f"a scan has 1 to {MAX_ELEMENTS} elements, not {len(forms)}")
        self._forms = tuple(forms)
        offsets, end, largest = [], 0, 1
        for form in forms:
            size = form.size_bytes
            offsets.append(-(-end // size) * size)
            end, largest = offsets[-1] + size, max(largest, size)
        self.scan_bytes = -(-end // largest) * largest
        self.columns = [sum(form.repeat for form in forms[:place]) for place in range(len(forms) + 1)]
        self._dtype = np.dtype(
            {
                "names": [str(place) for place in range(len(forms))],
                "formats": [
                    (f"{'>' if form.big_endian else '<'}u{form.storage_bits // 8}", (form.repeat,)) for form in forms
                ],
                "offsets": offsets,
                "itemsize": self.scan_bytes,
            }
        )

    def decode(self, data: bytes) -> npt.NDArray[np.int64]:
        """Samples of whole scans, raw: shape (scans, columns).

        Raises:
            MalformedError: `bad-iio-scan` for a piece of a scan.
        """
        if len(data) % self.scan_bytes:
            raise MalformedError("bad-iio-scan", f"{len(data)} bytes are no scans of {self.scan_bytes}")
        scans = np.frombuffer(data, self._dtype)
        raw = np.empty((len(scans), self.columns[-1]), np.int64)
        for place, form in enumerate(self._forms):
            words = scans[str(place)].astype(np.uint64) >> np.uint64(form.shift)
            words &= np.uint64((1 << form.bits) - 1)
            if form.signed:
                sign = np.uint64(1 << (form.bits - 1))
                words = (words ^ sign) - sign
            raw[:, self.columns[place] : self.columns[place + 1]] = words.view(np.int64)
        return raw


def parse_number(text: str) -> float:
    """A number as sysfs writes it.

    Raises:
        MalformedError: `bad-iio-number`.
    """
    text = text.strip()
    try:
        number = float(text) if len(text) <= _MAX_NUMBER_CHARS else np.nan
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise MalformedError("bad-iio-number", "the file holds no number")
    return number


def kind_of(channel: str) -> str:
    """The kind of a channel, by which the ABI gives units: `accel` of `accel_x`, `voltage` of `voltage0`."""
    return re.split(r"[\d_-]", channel, maxsplit=1)[0]
