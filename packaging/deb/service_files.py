"""Where units, users, folders and device rules go, out of packaging/systemd and packaging/udev."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from parts import REPOSITORY, Part
from targets import Target

_SYSTEMD: Final = REPOSITORY / "packaging" / "systemd"
_UDEV: Final = REPOSITORY / "packaging" / "udev"
_ENVIRONMENT: Final = Path(__file__).with_name("environment.conf")
_HAS_RESTART_STEPS: Final = frozenset({"trixie"})
"""Releases whose systemd is 254 or later."""


def lay_service_files(part: Part, target: Target, root: Path) -> None:
    """Copy what belongs to one part below `root`; its unit must be there."""
    unit = f"{part.package}.service"
    system = root / "usr/lib/systemd/system"
    _copy(_SYSTEMD / unit, system / unit)
    for file in _conf_files(_SYSTEMD / f"{unit}.d"):
        _copy(file, system / f"{unit}.d" / file.name)
    if target.release in _HAS_RESTART_STEPS:
        _copy(_SYSTEMD / "back-off" / "restart.conf", system / f"{unit}.d" / "back-off.conf")
    # Switched on by a person who copies them to /etc/systemd/system.
    for file in _conf_files(_SYSTEMD / "drop-ins" / f"{unit}.d"):
        _copy(file, root / "usr/share" / part.package / "drop-ins" / file.name)
    for kind in ("sysusers.d", "tmpfiles.d"):
        _copy(_SYSTEMD / kind / f"{part.package}.conf", root / "usr/lib" / kind / f"{part.package}.conf")
    if part.name == "agent":
        for file in sorted(_UDEV.glob("*.rules")):
            _copy(file, root / "usr/lib/udev/rules.d" / file.name)
    _copy(_ENVIRONMENT, root / "etc/default" / part.package)


def _conf_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.conf"))


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)
