"""What the kernel says in /sys and /proc about heat, power and load. What cannot be read is None.

Source: Linux ABI documentation, `sysfs-class-thermal`, `sysfs-class-power`, `sysfs-class-hwmon`; Raspberry Pi firmware,
`get_throttled`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SYS: Final = Path("/sys")
PROC: Final = Path("/proc")
_THROTTLED: Final = "devices/platform/soc/soc:firmware/get_throttled"
_UNDERVOLTAGE_NOW: Final = 1 << 0
_SLOWED_NOW: Final = 1 << 1 | 1 << 2 | 1 << 3
"""Frequency capped, throttled, soft temperature limit: now. The upper half of the word is what happened since boot."""
_SLOWING_TRIPS: Final = frozenset({"passive", "hot", "critical"})
_MAX_TEXT_BYTES: Final = 4_096
_MAX_TRIPS: Final = 64


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """One reading.

    Attributes:
        throttled: the processor is slowed down because of heat or power.
        undervoltage: the supply's voltage is low.
        on_mains: False where a battery is discharging; True, too, on a machine without a battery.
        battery_share: charge of the emptiest battery, 0 to 1.
        load_per_core: one-minute load average by cores.
    """

    throttled: bool | None
    undervoltage: bool | None
    on_mains: bool | None
    battery_share: float | None
    load_per_core: float | None


def read_kernel(sys: Path = SYS, proc: Path = PROC, cores: int | None = os.cpu_count()) -> KernelFacts:
    """Take a reading; about a millisecond."""
    word = _number(sys / _THROTTLED, base=16)
    alarms = [_number(path) for path in sorted(sys.glob("class/hwmon/hwmon*/in0_lcrit_alarm"))]
    low = [bool(alarm) for alarm in alarms if alarm is not None]
    low += [bool(word & _UNDERVOLTAGE_NOW)] if word is not None else []
    slowed = list(_zones_at_their_trips(sys)) + ([bool(word & _SLOWED_NOW)] if word is not None else [])
    on_mains, battery_share = _power(sys / "class/power_supply")
    return KernelFacts(
        throttled=any(slowed) if slowed else None,
        undervoltage=any(low) if low else None,
        on_mains=on_mains,
        battery_share=battery_share,
        load_per_core=_load(proc / "loadavg", cores or 1),
    )


def _zones_at_their_trips(sys: Path) -> Iterator[bool]:
    """For each thermal zone that names a temperature at which the kernel slows down: whether it is that warm."""
    for zone in sorted(sys.glob("class/thermal/thermal_zone*")):
        temperature_mc = _number(zone / "temp")
        trips = [
            _number(zone / f"trip_point_{number}_temp")
            for number in range(_MAX_TRIPS)
            if _text(zone / f"trip_point_{number}_type") in _SLOWING_TRIPS
        ]
        slowing_mc = [trip for trip in trips if trip is not None and trip > 0]  # 0 and below are switched off
        if temperature_mc is not None and slowing_mc:
            yield temperature_mc >= min(slowing_mc)


def _power(directory: Path) -> tuple[bool | None, float | None]:
    """Whether the machine is on mains, and the charge of its emptiest battery."""
    try:
        supplies = sorted(directory.iterdir())
    except FileNotFoundError:
        return True, None  # a kernel without batteries
    except OSError:
        return None, None
    mains: list[bool] = []
    batteries: list[str] = []
    shares: list[float] = []
    for supply in supplies:
        kind = _text(supply / "type")
        if kind == "Battery" and _text(supply / "scope") != "Device":  # a mouse has a battery, too
            batteries.append(_text(supply / "status"))
            percent = _number(supply / "capacity")
            shares += [min(100, max(0, percent)) / 100] if percent is not None else []
        elif kind in ("Mains", "USB") and (online := _number(supply / "online")) is not None:
            mains.append(bool(online))
    share = min(shares, default=None)
    if not batteries:
        return True, share
    if any(status == "Discharging" for status in batteries):
        return False, share
    if mains:
        return any(mains), share
    return (
        (True, share) if all(status in ("Charging", "Full", "Not charging") for status in batteries) else (None, share)
    )


def _load(path: Path, cores: int) -> float | None:
    first = _text(path).split(" ")[0]
    with suppress(ValueError):
        return float(first) / cores
    return None


def _number(path: Path, base: int = 10) -> int | None:
    with suppress(ValueError):
        return int(_text(path), base)
    return None


def _text(path: Path) -> str:
    """A line of the kernel's; empty where it cannot be read: some drivers fail reads while they are busy."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(_MAX_TEXT_BYTES).decode(errors="replace").strip()
    return ""
