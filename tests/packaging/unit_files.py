"""The units as they are shipped, read as systemd reads them: repeated keys, and a `.d` folder beside a unit."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SYSTEMD: Final = Path(__file__).parents[2] / "packaging" / "systemd"
UNITS: Final = ("bedside-agent.service", "bedside-trustee.service", "bedside-coordinator.service")

Settings = dict[str, list[str]]
"""By key; an empty value has taken back what stood before it."""


def settings(unit: str, *, optional: bool = False) -> Settings:
    """A unit with its drop-ins; with those also that an administrator may switch on."""
    found: Settings = {}
    for path in (SYSTEMD / unit, *drop_ins(unit, optional=optional)):
        _read(path, found)
    return found


def drop_ins(unit: str, *, optional: bool) -> list[Path]:
    """Drop-ins of a unit, in the order in which they count."""
    folders = [SYSTEMD / f"{unit}.d", *([SYSTEMD / "drop-ins" / f"{unit}.d"] if optional else [])]
    return sorted((path for folder in folders for path in folder.glob("*.conf")), key=lambda path: path.name)


def _read(path: Path, into: Settings) -> None:
    for line in path.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            into[key] = [*into.get(key, []), value] if value else []
