"""One device of the kernel's industrial IO tree: its files, and what makes physical values of its numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bedside.agent.formats.iio import UNITS, kind_of, parse_number
from bedside.core.errors import ConfigError, UnavailableError


@dataclass(frozen=True, slots=True)
class Calibration:
    """physical = (raw + offset) * scale, in `unit`.

    Attributes:
        unit: UCUM; empty where the ABI gives none.
    """

    scale: float
    offset: float
    unit: str


class IioDevice:
    """The files of a device.

    Attributes:
        folder: below /sys/bus/iio/devices.
        node: its buffer, in /dev.
    """

    def __init__(self, folder: Path, node: Path) -> None:
        self.folder = folder
        self.node = node

    @classmethod
    def find(cls, root: Path, wanted: str) -> IioDevice:
        """The device that is called so, or whose chip is.

        Args:
            root: of the tree, / but in tests.
            wanted: `iio:device0`, or what its file `name` says.

        Raises:
            UnavailableError: `iio-missing`.
            ConfigError: `iio-ambiguous` when several have this name.
        """
        folders = sorted((root / "sys/bus/iio/devices").glob("iio:device*"))
        found = [folder for folder in folders if wanted in (folder.name, _text(folder / "name"))]
        if not found:
            raise UnavailableError("iio-missing", f"there is no {wanted}", remedy="load its driver; see lsiio")
        if len(found) > 1:
            names = ", ".join(folder.name for folder in found)
            raise ConfigError("iio-ambiguous", f"several devices are {wanted}", remedy=f"use one of {names}")
        return cls(found[0], root / "dev" / found[0].name)

    def text(self, *names: str) -> str | None:
        """What the first of some files says that there is."""
        return next((text for name in names if (text := _text(self.folder / name)) is not None), None)

    def write(self, name: str, text: str) -> None:
        """Set a file.

        Raises:
            UnavailableError: `iio-setup`.
        """
        try:
            (self.folder / name).write_text(text)
        except OSError as error:
            raise UnavailableError(
                "iio-setup",
                f"{self.folder.name}/{name} cannot be set: {error.strerror}",
                remedy="let this user write it (udev), or set up the buffer before",
            ) from error

    def calibration(self, channel: str) -> Calibration:
        """What a channel's numbers mean; its own files go before those that it shares.

        Raises:
            MalformedError: `bad-iio-number`.
        """
        kind = kind_of(channel)
        unit, of_abi = UNITS.get(kind, ("", 1.0))
        alike = re.sub(r"\d+", "", channel)  # in_voltage-voltage_scale of voltage0-voltage1

        def number(what: str, default: float) -> float:
            text = self.text(*(f"in_{one}_{what}" for one in (channel, alike, kind)), f"in_{what}")
            return default if text is None else parse_number(text)

        return Calibration(number("scale", 1.0) * of_abi, number("offset", 0.0), unit)

    def value(self, channel: str) -> tuple[float | None, str]:
        """A channel's value now and its unit; None where the device cannot tell.

        Raises:
            UnavailableError: `iio-missing` when the device or the channel is gone.
            MalformedError: `bad-iio-number`.
        """
        names = [name for name in (f"in_{channel}_input", f"in_{channel}_raw") if (self.folder / name).exists()]
        if not names:
            raise UnavailableError("iio-missing", f"{self.folder.name} has no channel {channel}", remedy="see iio_info")
        unit, of_abi = UNITS.get(kind_of(channel), ("", 1.0))
        try:
            number = parse_number((self.folder / names[0]).read_text("ascii", "replace"))
        except OSError:  # busy, or the sensor did not answer
            return None, unit
        if names[0].endswith("_input"):
            return number * of_abi, unit
        made = self.calibration(channel)
        return (number + made.offset) * made.scale, unit


def _text(path: Path) -> str | None:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return None
