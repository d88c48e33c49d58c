"""How the buffer of an industrial IO device is set up: which channels it delivers, in which form, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.agent.formats.iio import SampleForm, ScanLayout, kind_of, parse_form, parse_number
from bedside.agent.sources.iio.device import IioDevice
from bedside.core.errors import ConfigError
from bedside.core.limits import MAX_RATE_HZ
from bedside.core.samples import Samples

_TIMESTAMP: Final = "timestamp"
_ENABLE: Final = "buffer/enable"


@dataclass(frozen=True, slots=True)
class ScanSetUp:
    """What the buffer delivers.

    Attributes:
        layout: of its scans.
        columns: of the wanted channels, in their order.
        forms: of these columns.
        stamp: column of the time; None without one.
        realtime: that time is of the wall clock.
        scale: of each column, as `offset`.
        unit: UCUM, of all columns.
    """

    layout: ScanLayout
    columns: list[int]
    forms: list[SampleForm]
    stamp: int | None
    realtime: bool
    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    unit: str
    rate_hz: float

    @property
    def dtype(self) -> str:
        """Smallest type of a block that holds the samples as they are; float32 where channels differ in their scale."""
        if self.offset.any() or (self.scale != self.scale[0]).any():
            return "float32"
        bits = max(form.bits + (not form.signed) for form in self.forms)
        return "int16" if bits <= 16 else "int32" if bits <= 32 else "float32"

    def values(self, raw: npt.NDArray[np.int64]) -> Samples:
        """Samples in the type of a block."""
        if self.dtype == "int16":
            return raw.astype(np.int16)
        if self.dtype == "int32":
            return raw.astype(np.int32)
        return ((raw + self.offset) * self.scale).astype(np.float32)

    def saturated(self, raw: npt.NDArray[np.int64]) -> bool:
        """Whether some sample is the largest or the smallest that its form has."""
        lowest = np.array([-(1 << (form.bits - 1)) if form.signed else 0 for form in self.forms])
        highest = np.array([(1 << (form.bits - form.signed)) - 1 for form in self.forms])
        return bool(((raw == lowest) | (raw == highest)).any())


def begin(device: IioDevice, channels: Sequence[str]) -> bool:
    """Let the buffer deliver these channels and the time; whether that was needed, for another program may have.

    Raises:
        UnavailableError: `iio-setup`.
        ConfigError: `iio-channel`.
    """
    names = _elements(device)
    _check(device, channels, names)
    if device.text(_ENABLE) == "1":
        return False
    for name in names:
        device.write(f"scan_elements/in_{name}_en", "1" if name in channels or name == _TIMESTAMP else "0")
    device.write(_ENABLE, "1")
    return True


def end(device: IioDevice) -> None:
    """Let it deliver no more.

    Raises:
        UnavailableError: `iio-setup`.
    """
    device.write(_ENABLE, "0")


def read_set_up(device: IioDevice, channels: Sequence[str], rate_hz: float) -> ScanSetUp:
    """What a buffer that delivers is set up for.

    Args:
        device: whose buffer delivers.
        channels: the wanted ones.
        rate_hz: 0 is what the device says.

    Raises:
        ConfigError: `iio-channel`, `iio-units`, `iio-rate`.
        MalformedError: `bad-iio-type`, `bad-iio-scan`, `bad-iio-number`: the kernel's files are of another form.
    """
    order = sorted(
        (int(parse_number(device.text(f"scan_elements/in_{name}_index") or "")), name)
        for name in _elements(device)
        if device.text(f"scan_elements/in_{name}_en") == "1"
    )
    present = [name for _, name in order]
    _check(device, channels, present)
    forms = [parse_form(device.text(f"scan_elements/in_{name}_type") or "") for name in present]
    layout = ScanLayout(forms)
    columns, column_forms, scale, offset = list[int](), list[SampleForm](), list[float](), list[float]()
    units = set()
    for channel in channels:
        place, calibration = present.index(channel), device.calibration(channel)
        units.add(calibration.unit)
        for column in range(layout.columns[place], layout.columns[place + 1]):
            columns.append(column)
            column_forms.append(forms[place])
            scale.append(calibration.scale)
            offset.append(calibration.offset)
    if len(units) > 1:
        raise ConfigError(
            "iio-units",
            f"{', '.join(channels)} of {device.folder.name} have several units",
            remedy="make a source of the channels of each unit",
        )
    return ScanSetUp(
        layout,
        columns,
        column_forms,
        layout.columns[present.index(_TIMESTAMP)] if _TIMESTAMP in present else None,
        device.text("current_timestamp_clock") in ("realtime", None),
        np.array(scale),
        np.array(offset),
        units.pop() or "1",
        rate_hz or _rate_of(device, channels[0]),
    )


def _elements(device: IioDevice) -> list[str]:
    return [path.name[3:-3] for path in (device.folder / "scan_elements").glob("in_*_en")]


def _check(device: IioDevice, channels: Sequence[str], present: Sequence[str]) -> None:
    absent = [channel for channel in channels if channel not in present]
    if absent:
        raise ConfigError(
            "iio-channel",
            f"the buffer of {device.folder.name} delivers no {', '.join(absent)}",
            remedy="use some of " + ", ".join(sorted(present)),
        )


def _rate_of(device: IioDevice, channel: str) -> float:
    places = (f"in_{channel}_", f"in_{kind_of(channel)}_", "", "buffer/")
    text = device.text(*(f"{place}sampling_frequency" for place in places))
    rate_hz = parse_number(text) if text is not None else 0.0
    if not 0 < rate_hz <= MAX_RATE_HZ:
        raise ConfigError("iio-rate", f"{device.folder.name} does not say its rate", remedy="set `rate_hz` to it")
    return rate_hz
