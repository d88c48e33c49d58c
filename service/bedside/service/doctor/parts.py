"""The parts of this installation that bring checks, and which of them a directory is of."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import msgspec

from bedside.core.errors import ConfigError
from bedside.core.unreadable import UNREADABLE
from bedside.service.doctor.check import LEVEL_WORDS, Finding, Part
from bedside.service.health import Level
from bedside.service.text import bounded

ENTRY_POINTS: Final = "bedside.checks"
PACKAGED: Final = Path("/opt/bedside")
"""Each package has a Python of its own below it, with the name of its part."""
MACHINE_NAME: Final = "machine"
STATES: Final = Path("/var/lib/bedside")
ALONE: Final = "BEDSIDE_DOCTOR_ALONE"
"""Variable of a doctor that another one has asked, and that asks nobody."""

_NOTHING_THERE: Final = (64, ConfigError.exit_status)
"""How a doctor ends that was asked for a directory that is not there, or that is not its part's."""
_ASKED_S: Final = 300.0
_LEVELS: Final = {word: level for level, word in LEVEL_WORDS.items()}


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
    """Whether it is a directory of this part; a link whose file is gone is still its marker, and no small trouble.

    Raises:
        ConfigError: `not-yours`: only its owner, or root, may look.
    """
    try:
        (directory / part.marker).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise ConfigError(
            "not-yours", f"{directory} is not this user's to look into", remedy="run this with sudo, or as its owner"
        ) from error
    return True


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
        remedy="name the directory of one, or install the package of the part that it is of",
    )


class _Row(msgspec.Struct):
    part: str
    directory: str
    check: str
    level: str
    found: str
    remedy: str


class _Report(msgspec.Struct):
    findings: list[_Row]


def neighbours(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The `bedside` of every other package on this machine; none for a doctor that one of them has asked."""
    if environ.get(ALONE):
        return []
    return [path for path in sorted(PACKAGED.glob("*/bin/bedside")) if not path.parents[1].samefile(sys.prefix)]


def _broken(name: str, why: str) -> Finding:
    return Finding(
        Level.FAILED,
        f"its program does not run: {why}",
        f"install bedside-{name} of this release of the system; `/opt/bedside/{name}/bin/bedside doctor` says why",
        "package",
    )


def ask_neighbour(executable: Path, directory: Path | None = None) -> tuple[str, str, list[Finding]] | None:
    """What another package's doctor finds in a directory of its part; None where it has none there.

    One that cannot say so does not run, such as after an upgrade of Debian that took its Python: that is a finding.

    Args:
        executable: one of `neighbours`.
        directory: to look at; the one that its package has set up where it is left out.
    """
    name = executable.parents[1].name
    place = directory or STATES / name
    command = [str(executable), "doctor", "--json", str(place)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_ASKED_S, check=False,
            env=os.environ | {ALONE: "1"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return None if directory else (name, str(place), [_broken(name, bounded(str(error), 200))])
    try:
        rows = [row for row in msgspec.json.decode(done.stdout, type=_Report).findings if row.part != MACHINE_NAME]
        findings = [Finding(_LEVELS[row.level], row.found, row.remedy, row.check) for row in rows]
    except (KeyError, *UNREADABLE):
        if directory or done.returncode in _NOTHING_THERE:
            return None
        return name, str(place), [_broken(name, f"status {done.returncode}")]
    return (rows[0].part, rows[0].directory, findings) if rows else None
