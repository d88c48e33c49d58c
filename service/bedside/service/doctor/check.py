"""Checks: each looks at one thing that can be wrong, and says what it found and what to do.

Invariants:
    * A check changes nothing that lasts.
    * One check that fails in a way that nobody thought of never hides the others.
    * What is found holds no key, no token and nothing of a patient.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bedside.core.clock import Clock
from bedside.core.errors import BedsideError
from bedside.service.health import Level
from bedside.service.text import bounded

LEVEL_WORDS: Final = {Level.OK: "ok", Level.DEGRADED: "warn", Level.FAILED: "fail"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        level: OK; DEGRADED: it works, and somebody should look; FAILED: it does not work, or will not for long.
        found: in a few words or a sentence.
        remedy: what to do; empty for the check's own.
        check: its name; filled in by `examine`.
    """

    level: Level
    found: str
    remedy: str = ""
    check: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look.

    Attributes:
        directory: of the component; need not be there yet.
        clock: the machine's.
        environ: what tells of proxies and credentials.
        unit: of systemd that runs the component; empty for none.
        root: of the machine's files, `/` but in tests: `proc`, `sys` and `run` lie below it.
    """

    directory: Path
    clock: Clock
    environ: Mapping[str, str] = field(default_factory=dict)
    unit: str = ""
    root: Path = Path("/")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at.

    Attributes:
        name: stable, for monitoring.
        about: what it looks at, as the documentation lists it.
        remedy: what usually helps, as the documentation lists it.
        look: yields what it found; nothing where it does not apply. May raise a BedsideError, which is a failure.
    """

    name: str
    about: str
    remedy: str
    look: Callable[[Place], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Part:
    """What one component brings; an entry point of the group `bedside.checks` names it.

    Attributes:
        name: `agent`, `trustee` or `coordinator`.
        directory: where its package keeps it.
        marker: file that every directory of it has.
        unit: of systemd, without its suffix.
        early: checks that hold before anything is set up.
        checks: the others.
    """

    name: str
    directory: Path
    marker: str
    unit: str
    early: tuple[Check, ...]
    checks: tuple[Check, ...]


def good(found: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, found)


def doubtful(found: str, remedy: str = "") -> Finding:
    """It works, and somebody should look."""
    return Finding(Level.DEGRADED, found, remedy)


def bad(found: str, remedy: str = "") -> Finding:
    """It does not work, or will not for long."""
    return Finding(Level.FAILED, found, remedy)


def examine(checks: Iterable[Check], place: Place) -> list[Finding]:
    """Run checks one after the other; whatever one raises is what it found."""
    return [finding for check in checks for finding in _examine(check, place)]


def _examine(check: Check, place: Place) -> list[Finding]:
    try:
        found = list(check.look(place))
    except BedsideError as error:
        found = [bad(f"{error.sentence} [{error.code}]", error.remedy)]
    except Exception as error:  # noqa: BLE001 - one check never hides the others
        what = bounded(f"{type(error).__name__}: {error}", 200)
        found = [bad(f"it cannot be looked at: {what}", "report this: it should have said why")]
    usual = _typeable(check.remedy, place)
    return [replace(one, check=check.name, remedy=one.remedy or (usual if one.level else "")) for one in found]


def _typeable(remedy: str, place: Place) -> str:
    """A remedy as the documentation lists it, with the words of this place."""
    words = {"DIRECTORY": str(place.directory), "UNIT": place.unit or "UNIT"}
    return re.sub(r"\b(DIRECTORY|UNIT)\b", lambda match: words[match[1]], remedy)


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level among findings; its value is the exit status."""
    return max((finding.level for finding in findings), default=Level.OK)
