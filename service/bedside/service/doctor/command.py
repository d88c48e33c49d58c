"""`bedside doctor`: every check of this machine and of what is set up on it, each with its remedy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import click
import msgspec

from bedside.core.errors import ConfigError
from bedside.service.account import account_of, run_as
from bedside.service.doctor.check import LEVEL_WORDS, Check, Finding, Part, Place, examine, worst
from bedside.service.doctor.machine import MACHINE
from bedside.service.doctor.parts import MACHINE_NAME, ask_neighbour, installed_parts, is_of, neighbours, part_of
from bedside.service.doctor.storage import DISK, WRITING
from bedside.service.health import Level
from bedside.service.output import emit, json_option
from bedside.service.platform import SystemClock
from bedside.service.systemd import Unit, find_unit
from bedside.service.text import bounded

_COLOURS: Final = {Level.OK: "green", Level.DEGRADED: "yellow", Level.FAILED: "red"}
_DIRECTORY: Final = click.Path(file_okay=False, exists=True, path_type=Path)


@click.command()
@click.argument("directories", nargs=-1, type=_DIRECTORY)
@json_option
@click.pass_context
def doctor(context: click.Context, directories: tuple[Path, ...], as_json: bool) -> None:
    """Look for what is wrong with this machine, and with what is set up in DIRECTORIES; say what to do.

    Without a directory it looks at what the packages have set up under /var/lib/bedside. Nothing is changed. Run as
    root it looks at each directory as the user that it belongs to. It ends with 0 (all is well), 1 (somebody should
    look) or 2 (something does not work), as monitoring expects it.
    """
    parts, clock = installed_parts(), SystemClock()
    chosen, elsewhere = _choose(directories, parts)
    found: list[tuple[str, str, list[Finding]]] = []
    machine = MACHINE if chosen or elsewhere else (*MACHINE, DISK, WRITING)
    base = parts[0].directory if parts else Path("/")
    _look(found, MACHINE_NAME, "", machine, Place(base, clock), as_json)
    for part, directory in chosen:
        checks = (*part.early, *part.checks)
        _look(found, part.name, str(directory), checks, Place(directory, clock, unit=part.unit), as_json)
    for name, where, findings in elsewhere:
        _tell(found, name, where, findings, as_json)
    for part in parts if not (chosen or elsewhere) else ():
        checks = tuple(check for check in part.early if check not in (DISK, WRITING))
        if checks:
            _look(found, part.name, "", checks, Place(part.directory, clock), as_json)
    every = [finding for _, _, findings in found for finding in findings]
    if as_json:
        emit(report(found), as_json)
    else:
        click.echo(_summary(every))
    context.exit(int(worst(every)))


def _choose(
    directories: Sequence[Path], parts: list[Part]
) -> tuple[list[tuple[Part, Path]], list[tuple[str, str, list[Finding]]]]:
    """What is looked at here, and what other packages on this machine have found in the rest.

    Raises:
        ConfigError: `no-component`, `not-yours`.
    """
    if not directories:
        told = [ask_neighbour(executable) for executable in neighbours()]
        return [(part, part.directory) for part in parts if is_of(part.directory, part)], [one for one in told if one]
    chosen: list[tuple[Part, Path]] = []
    elsewhere: list[tuple[str, str, list[Finding]]] = []
    for directory in directories:
        try:
            chosen.append((part_of(directory, parts), directory))
        except ConfigError:
            told = [ask_neighbour(executable, directory.absolute()) for executable in neighbours()]
            if not any(told):
                raise
            elsewhere += [one for one in told if one]
    return chosen, elsewhere


def examine_as_owner(checks: Sequence[Check], place: Place, user: str = "") -> list[Finding]:
    """Run checks as the user whose the directory is, with the groups and the proxies of its unit."""
    unit = find_unit(place.unit, place.root)
    if unit is not None and not unit.runs(place.directory):
        unit = None
    account = account_of(place.directory, user, unit.groups if unit is not None else ())

    def work() -> list[Finding]:
        _take_proxies(unit)
        return examine(checks, replace(place, environ=os.environ))

    return msgspec.json.decode(run_as(account, work), type=list[Finding])


def _take_proxies(unit: Unit | None) -> None:
    """Reach the coordinator as the service does: by its proxies, where there is one that runs this directory."""
    if unit is None:
        return
    told = unit.environment()
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy"):
        os.environ.pop(name, None)
    os.environ.update(told)


def _look(
    found: list[tuple[str, str, list[Finding]]],
    name: str,
    directory: str,
    checks: Sequence[Check],
    place: Place,
    as_json: bool,
) -> None:
    _tell(found, name, directory, examine_as_owner(checks, place), as_json)


def _tell(
    found: list[tuple[str, str, list[Finding]]], name: str, directory: str, findings: list[Finding], as_json: bool
) -> None:
    found.append((name, directory, findings))
    if not as_json:
        click.secho(f"{name}  {directory}".rstrip(), bold=True)
        show(findings)


def show(findings: Iterable[Finding]) -> None:
    """Print findings, a line each, and the remedy of what is not well below it."""
    listed = list(findings)
    width = max((len(finding.check) for finding in listed), default=0)
    for finding in listed:
        word = click.style(f"{LEVEL_WORDS[finding.level]:<4}", fg=_COLOURS[finding.level])
        click.echo(f"  {word}  {finding.check:<{width}}  {bounded(finding.found)}")
        if finding.level and finding.remedy:
            click.echo(f"  {'':<4}  {'':<{width}}  → {bounded(finding.remedy)}")
    sys.stdout.flush()


def report(found: Iterable[tuple[str, str, list[Finding]]]) -> dict[str, object]:
    """The same for programs."""
    listed = list(found)
    return {
        "state": LEVEL_WORDS[worst(one for _, _, findings in listed for one in findings)],
        "findings": [
            {
                "part": name,
                "directory": directory,
                "check": one.check,
                "level": LEVEL_WORDS[one.level],
                "found": one.found,
                "remedy": one.remedy,
            }
            for name, directory, findings in listed
            for one in findings
        ],
    }


def _summary(findings: Sequence[Finding]) -> str:
    counts = {level: sum(one.level is level for one in findings) for level in Level}
    return f"{counts[Level.OK]} well, {counts[Level.DEGRADED]} to look at, {counts[Level.FAILED]} not working"
