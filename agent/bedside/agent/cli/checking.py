"""`bedside agent check`: what would keep the agent from starting, or a part of it from working."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bedside.agent.cli.reach import DIRECTORY
from bedside.agent.config import load_agent_config
from bedside.agent.naming import typeable
from bedside.core.errors import ConfigError
from bedside.service.output import Table, emit, json_option
from bedside.service.platform import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from bedside.agent.checking import Checked


@click.command()
@click.argument("directory", type=DIRECTORY)
@json_option
@click.pass_context
def check(context: click.Context, directory: Path, as_json: bool) -> None:
    """Look at the configuration of DIRECTORY before a restart: every source, sink, secret, alarm, and the policy.

    Nothing is opened or changed, and a running agent goes on. It ends with 0 where all of it holds, else with 78. What
    most likely is not meant is told as a warning, which keeps nothing from starting.
    """
    from bedside.agent.checking import check_device

    with typeable(directory):
        found = check_device(directory, load_agent_config(directory), SystemClock(), SystemEntropy())
    rows = [(one.part, *_words(one)) for one in found]
    fields = [
        {
            "part": one.part,
            "ok": one.error is None,
            "code": one.error.code if one.error else "",
            "sentence": one.error.sentence if one.error else one.note,
            "remedy": one.error.remedy if one.error else "",
            "warnings": list(one.warnings),
        }
        for one in found
    ]
    emit(fields, as_json, table=Table(("PART", "STATE", "WHAT"), rows))
    wrong = [one for one in found if one.error is not None]
    for one in wrong if not as_json else ():
        assert one.error is not None  # noqa: S101 - just chosen so
        click.echo(f"\n{one.part}: {one.error.remedy}" if one.error.remedy else "")
    for one in found if not as_json else ():
        for warning in one.warnings:
            click.echo(f"\n{one.part}: {warning}")
    if wrong:
        context.exit(ConfigError.exit_status)


def _words(one: Checked) -> tuple[str, str]:
    """The state of a part, and what it is or what is wrong with it."""
    if one.error is not None:
        return "wrong", one.error.sentence
    return "warning" if one.warnings else "ok", one.note
