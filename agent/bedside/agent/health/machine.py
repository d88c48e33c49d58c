"""What the machine says about itself. Nothing here fails: what cannot be read is absent."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from bedside.agent.health.kernel import KernelFacts, read_kernel


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """One reading.

    Attributes:
        os_version: name and version of the system, for instance `Debian GNU/Linux 12 (bookworm)`.
        rss_bytes: resident memory of this process.
        disk_free_bytes: where the state directory is.
        temperature_mc: hottest sensor, thousandths of a degree Celsius; None where none can be read.
        memory_free_bytes: that a process could take without swapping.
        kernel: heat, power and load.
    """

    os_version: str
    rss_bytes: int
    disk_free_bytes: int
    temperature_mc: int | None
    memory_free_bytes: int
    kernel: KernelFacts


def read_machine(state_dir: Path) -> MachineFacts:
    """Take a reading."""
    import psutil

    return MachineFacts(
        os_version=_os_version(),
        rss_bytes=psutil.Process().memory_info().rss,
        disk_free_bytes=psutil.disk_usage(str(state_dir)).free,
        temperature_mc=temperature_mc(),
        memory_free_bytes=psutil.virtual_memory().available,
        kernel=read_kernel(),
    )


def _os_version() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return f"{platform.system()} {platform.release()}"


def temperature_mc() -> int | None:
    """The hottest sensor, thousandths of a degree Celsius; None where none can be read."""
    import psutil

    try:
        sensors = psutil.sensors_temperatures()
    except (AttributeError, OSError):  # no such sensors on this system
        return None
    readings = [reading.current for group in sensors.values() for reading in group]
    return round(max(readings) * 1000) if readings else None
