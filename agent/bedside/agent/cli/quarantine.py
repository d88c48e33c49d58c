"""The commands about what sources could not understand: list and clear, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import click

from bedside.agent.buffer.rows import Quarantined
from bedside.agent.cli.groups import ListingGroup
from bedside.agent.cli.reach import DIRECTORY, change, reading
from bedside.agent.config import load_agent_config
from bedside.core.errors import ProtocolError
from bedside.core.vocabulary.reading import Reason
from bedside.service.output import Table, emit, human_age, json_option
from bedside.service.platform import SystemClock
from bedside.service.text import bounded

REMEDIES: Final[dict[str, str]] = {
    Reason.BAD_MESSAGE: "the sender's messages are not what the kind of this source reads: compare its options with"
    " `bedside agent sources kinds`, and ask whoever runs the sender for a sample without patient data",
    Reason.UNKNOWN_CODE: "say what the code is: a table [sources.options.fields.NAME] with code, and system for what"
    ' is shown behind ^: HR1^L is code = "HR1" and system = "L". NAME is a field of your own in the records, for'
    " instance heart_rate_local: one that the vocabulary fills, such as heart_rate, would no longer be filled from the"
    " known codes",
    Reason.UNKNOWN_UNIT: 'add sent_unit = "..." (UCUM) to the field where the sender gives none, or have the sender'
    " corrected: a unit that does not convert is never guessed",
    Reason.NOT_A_NUMBER: "the sender puts text where a number belongs: map another code to the field, or let it be",
    Reason.OUT_OF_RANGE: "name the sender's mark for no value in missing = [...] of the field, or widen its low and"
    " high where such values are real",
    Reason.AMBIGUOUS: "several readings of one quantity at one time: choose one of them in the field, with"
    ' channel = "..." or code = "..."',
    Reason.DUPLICATE: "the sender gives one value twice, under codes of one meaning; one is kept: nothing to be done",
    Reason.BAD_STATUS: "corrections, deletions and preliminary results are no measurements of now: nothing to be done",
    Reason.BAD_TIME: 'set the sender\'s clock, or time_zone = "..." of the source; clock = "arrival" takes the time of'
    " arrival instead",
    Reason.UNKNOWN_PLACE: "give the bed, device or topic a stream in the options of the source",
    Reason.NOT_WANTED: "no stream takes this form (an image, a document): have the sender leave it out, or let it be",
    Reason.RULED_OUT: "a field of that name in [sources.options.fields] takes another code, system or channel, and that"
    " alone: give the field a name of its own, for instance heart_rate_local, where both are wanted",
}
"""What to do, by reason; `test_quarantine` sees that none is missing."""

_SOURCE = click.option("--source", default="", help="Of this source only.")
_REASON = click.option("--reason", type=click.Choice([one.value for one in Reason]), help="For this reason only.")


def _choosing(command: Callable[..., None]) -> Callable[..., None]:
    return _SOURCE(_REASON(json_option(command)))


@click.group("quarantine", cls=ListingGroup)
def quarantine() -> None:
    """Show or clear what sources could not understand. Without a command: `list`.

    A reading whose code, unit, value or time is not understood is never guessed: it is counted here, under its source,
    the reason, and the code and unit as they were sent. Its value is not kept, and no word of a message.
    """


@quarantine.command("list")
@click.argument("directory", type=DIRECTORY)
@_choosing
def list_quarantine(directory: Path, source: str, reason: str | None, as_json: bool) -> None:
    """List kinds of readings that the sources of DIRECTORY could not understand; the agent need not run."""
    with reading(directory) as reader:
        everything = reader.quarantine()
        _check_source(directory, source, [row.source for row in everything])
    found = [row for row in everything if source in ("", row.source) and (reason or row.reason) == row.reason]
    _show(found, as_json, "every reading was understood")
    if not as_json:
        for known in dict.fromkeys(row.reason for row in found):
            click.echo(f"\n{known}: {REMEDIES.get(known, '')}")


@quarantine.command("clear")
@click.argument("directory", type=DIRECTORY)
@_choosing
def clear_quarantine(directory: Path, source: str, reason: str | None, as_json: bool) -> None:
    """Remove what was counted, for instance after a mapping was added, and print it; what comes is counted anew."""
    with reading(directory) as reader:
        _check_source(directory, source, [row.source for row in reader.quarantine()])
    found = change(directory, lambda agent: agent.clear_quarantine(source=source, reason=reason or ""))
    _show(found, as_json, "there was nothing to clear")


def _check_source(directory: Path, source: str, counted: Collection[str]) -> None:
    """Refuse a name that is neither configured nor counted: an empty list would read as if all were well.

    Raises:
        ProtocolError: `no-such-source`.
    """
    known = dict.fromkeys([*(one.name for one in load_agent_config(directory).sources), *counted])
    if source and source not in known:
        raise ProtocolError(
            "no-such-source",
            f"there is no source {bounded(source, 64)!r} on this device",
            remedy=f"the sources are {bounded(', '.join(known))}" if known else "add a table [[sources]] to agent.toml",
        )


def _show(found: Sequence[Quarantined], as_json: bool, empty: str) -> None:
    age = partial(human_age, now_ns=SystemClock().now_ns())
    rows = [
        (row.source, row.reason, row.what, str(row.count), age(row.first_ns), age(row.last_ns))
        for row in sorted(found, key=lambda row: (row.source, -row.count))
    ]
    columns = ("SOURCE", "REASON", "WHAT", "COUNT", "FIRST", "LAST")
    table = Table(columns, rows, right=frozenset({"COUNT"}), empty=empty)
    emit([_fields(row) for row in found], as_json, table=table)


def _fields(row: Quarantined) -> dict[str, object]:
    return {
        "source": row.source,
        "reason": row.reason,
        "what": row.what,
        "count": row.count,
        "first_ns": row.first_ns,
        "last_ns": row.last_ns,
        "remedy": REMEDIES.get(row.reason, ""),
    }
