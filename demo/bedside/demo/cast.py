"""Who takes part: three hospitals, eight wearers whose devices train, two whose devices only infer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

FEDERATION: Final = "demo"
TASK: Final = "exercises"
STREAM: Final = "wrist"
SIGNER: Final = "rehab-lab"
"""Name under which the policies know the key that signs the model: a data scientist's, never the coordinator's."""


@dataclass(frozen=True)
class Device:
    """One wearer's device.

    Attributes:
        wearer: number of the person in the recordings.
        site: the hospital it belongs to.
        trains: whether it takes part in rounds; the others only infer.
        on_board: whether it reads from a sensor board on a serial port; the others replay the recording themselves.
    """

    wearer: int
    site: str
    trains: bool = True
    on_board: bool = False

    @property
    def name(self) -> str:
        """Its label, and the name of its process and folder."""
        return f"wearer-{self.wearer}"


@dataclass(frozen=True)
class HospitalCast:
    """One hospital and its devices."""

    site: str
    devices: tuple[Device, ...]


@dataclass(frozen=True)
class Cast:
    """Everybody."""

    hospitals: tuple[HospitalCast, ...]

    @property
    def devices(self) -> tuple[Device, ...]:
        """All devices, hospital by hospital."""
        return tuple(device for hospital in self.hospitals for device in hospital.devices)

    @property
    def training(self) -> tuple[Device, ...]:
        """Devices that take part in rounds."""
        return tuple(device for device in self.devices if device.trains)

    @property
    def held_out(self) -> tuple[Device, ...]:
        """Devices that only infer."""
        return tuple(device for device in self.devices if not device.trains)

    @property
    def sites(self) -> tuple[str, ...]:
        """Ids of the hospitals."""
        return tuple(hospital.site for hospital in self.hospitals)


SITES: Final = ("hospital-a", "hospital-b", "hospital-c")
_TRAINING_PER_SITE: Final = (3, 3, 2)


def assemble(wearers: Sequence[int], held_out: Sequence[int], on_board: int) -> Cast:
    """Spread the wearers over the hospitals.

    Args:
        wearers: numbers of all people in the recordings.
        held_out: those whose devices only infer; they go to the last hospitals.
        on_board: the one whose device reads from a sensor board.
    """
    training = iter([number for number in wearers if number not in held_out])
    rest = iter(held_out)
    hospitals = []
    for index, (site, count) in enumerate(zip(SITES, _TRAINING_PER_SITE, strict=True)):
        devices = [Device(number, site, on_board=number == on_board) for number in _take(training, count)]
        extra = 1 if index > 0 else 0
        devices += [Device(number, site, trains=False) for number in _take(rest, extra)]
        hospitals.append(HospitalCast(site, tuple(devices)))
    return Cast(tuple(hospitals))


def _take(numbers: Iterator[int], count: int) -> list[int]:
    return list(islice(numbers, count))
