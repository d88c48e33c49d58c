"""The commands about sources: list them, and teach their kinds."""

from __future__ import annotations

from pathlib import Path

import click

from bedside.agent.cli.error_words import error_words
from bedside.agent.cli.groups import ListingGroup
from bedside.agent.cli.kinds import complete_kinds, show_kinds
from bedside.agent.cli.looking import ask_status
from bedside.agent.cli.reach import DIRECTORY
from bedside.agent.cli.source_words import clock_words, source_fields, state_words
from bedside.service.output import Table, emit, human_duration, json_option

_MS_PER_S = 1_000


@click.group("sources", cls=ListingGroup)
def sources() -> None:
    """What this device reads, and how that goes. Without a command: `list`.

    A source is a table [[sources]] in agent.toml; `kinds` tells which kinds there are, and what each takes.
    """


@sources.command("list")
@click.argument("directory", type=DIRECTORY)
@json_option
def list_sources(directory: Path, as_json: bool) -> None:
    """List the sources of the running agent of DIRECTORY; counts are since it was started.

    QUARANTINE counts readings that were not understood (`bedside agent quarantine`), DROPPED what the source had to let
    go, REPEATED messages that came again. CLOCK is how far the sender's clock is ahead of this device's.
    """
    found = ask_status(directory).sources
    rows = [
        (
            source.name,
            source.kind,
            state_words(source),
            human_duration(source.last_seen_age_ms / _MS_PER_S) if source.HasField("last_seen_age_ms") else "never",
            str(source.blocks),
            str(source.records),
            str(source.unmapped),
            str(source.dropped),
            str(source.duplicates),
            clock_words(source),
            str(source.errors),
        )
        for source in found
    ]
    columns = (
        *("SOURCE", "KIND", "STATE", "LAST SEEN", "BLOCKS", "RECORDS"),
        *("QUARANTINE", "DROPPED", "REPEATED", "CLOCK", "ERRORS"),
    )
    right = frozenset({"LAST SEEN", "BLOCKS", "RECORDS", "QUARANTINE", "DROPPED", "REPEATED", "CLOCK", "ERRORS"})
    table = Table(columns, rows, right=right, empty="no sources: add a table [[sources]] to agent.toml")
    emit([source_fields(source) for source in found], as_json, table=table)
    for source in found if not as_json else ():
        if source.last_error:
            click.echo(f"\n{source.name}: {error_words(source)}")


@sources.command("kinds")
@click.argument("kind", default="", shell_complete=complete_kinds("bedside.agent.sources.registry"))
@json_option
def kinds(kind: str, as_json: bool) -> None:
    """List the kinds of sources of this installation, or the options that KIND takes in [sources.options]."""
    from bedside.agent.sources.registry import KINDS

    show_kinds(KINDS, kind, as_json)
