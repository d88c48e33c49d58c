"""The parts of this installation that bring checks, and which of them a directory is of."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from bedside.core.errors import ConfigError
from bedside.service.doctor.check import Part

ENTRY_POINTS: Final = "bedside.checks"
OTHERS: Final = "/opt/bedside/{agent,trustee,coordinator}/bin/bedside"


def installed_parts() -> list[Part]:
    """The parts whose code and libraries are here: a package of one component brings no other."""
    parts = []
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        try:
            parts.append(getattr(importlib.import_module(entry.module), entry.attr))
        except ModuleNotFoundError:
            continue
    return parts


def is_of(directory: Path, part: Part) -> bool:
    """Whether it is a directory of this part.

    Raises:
        ConfigError: `not-yours`: only its owner, or root, may look.
    """
    try:
        return (directory / part.marker).exists()
    except PermissionError as error:
        raise ConfigError(
            "not-yours", f"{directory} is not this user's to look into", remedy="run this with sudo, or as its owner"
        ) from error


def part_of(directory: Path, parts: list[Part]) -> Part:
    """Whose directory it is.

    Raises:
        ConfigError: `no-component`.
    """
    for part in parts:
        if is_of(directory, part):
            return part
    listed = ", ".join(f"{part.name} ({part.marker})" for part in parts) or "none"
    raise ConfigError(
        "no-component",
        f"{directory} is the directory of no part of this installation, which has {listed}",
        remedy=f"name the directory of one; where several packages are installed, call one of {OTHERS}",
    )
