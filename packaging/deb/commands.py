"""Bedside's commands, loaded from the source roots: what manual pages and completion are made of."""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click
from parts import PARTS, REPOSITORY, project

GROUP: Final = "bedside.commands"


def load(reference: str) -> object:
    """The object of a `module:name` of Bedside, imported from the repository."""
    for root in dict.fromkeys(root for part in PARTS for root in part.roots):
        if (folder := str(REPOSITORY / root)) not in sys.path:
            sys.path.append(folder)
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def _command(reference: str) -> click.Command:
    command = load(reference)
    if not isinstance(command, click.Command):
        raise TypeError(f"{reference} is not a click command")
    return command


def main_command() -> click.Command:
    """The command `bedside` itself."""
    return _command("bedside.service.cli:cli")


def commands_of(package_parts: frozenset[str]) -> dict[str, click.Command]:
    """The first-level commands whose code lies in one of these parts of Bedside, by name."""
    entries: dict[str, str] = project()["entry-points"][GROUP]
    chosen = {name: where for name, where in sorted(entries.items()) if where.split(".")[1] in package_parts}
    return {name: _command(where) for name, where in chosen.items()}


def completion_script(shell: str) -> str:
    """What a shell sources to complete `bedside`."""
    from click.shell_completion import get_completion_class

    script_class = get_completion_class(shell)
    if script_class is None:
        raise ValueError(f"click knows no completion for {shell}")
    return script_class(main_command(), {}, "bedside", "_BEDSIDE_COMPLETE").source()
