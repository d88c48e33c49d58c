"""The commands about labels: add, import, list, withdraw."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from bedside.agent.buffer.rows import Label
from bedside.agent.cli.label_file import WrongLinesError, parse_moment, read_labels
from bedside.agent.cli.reach import DIRECTORY, change, reading
from bedside.core.errors import BedsideError
from bedside.core.ids import SessionId, StreamId, check_id
from bedside.service.options import COUNT
from bedside.service.output import Table, emit, json_option
from bedside.service.text import bounded

_CSV = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("label")
def labels() -> None:
    """Say what a time of a stream was, for training and for checking predictions; take it back; list what was said.

    Every label belongs to the session that covers its start, and keeps who said so.
    """


@labels.command("add", context_settings={"ignore_unknown_options": True})  # a time before 1970 has a sign
@click.argument("directory", type=DIRECTORY)
@click.argument("stream")
@click.argument("start")
@click.argument("end")
@click.argument("label")
@json_option
def add_label(directory: Path, stream: str, start: str, end: str, label: str, as_json: bool) -> None:
    """Say that STREAM was LABEL from START to END: times as 2026-03-01T08:00:00Z, or seconds since 1970."""
    one = Label(StreamId(stream), SessionId(""), _time(start, "START"), _time(end, "END"), label, "cli")
    added = change(directory, lambda agent: agent.add_labels([one]))
    people = _people(added.labels[0]) | ({} if added.new else {"note": "it was there already"})
    emit(_fields(added.labels[0]) | {"new": bool(added.new)} if as_json else people, as_json)


@labels.command("import")
@click.argument("directory", type=DIRECTORY)
@click.argument("file", type=_CSV)
@click.option("--stream", default="", help="Stream of lines that name none.")
@click.option("--session", default="", help="Session of lines that name none.")
@json_option
def import_labels(directory: Path, file: Path, stream: str, session: str, as_json: bool) -> None:
    """Store the labels of a CSV FILE, all of them or none. The same file again adds nothing.

    Its first line names the columns: start and end (2026-03-01T08:00:00Z), or start_s and end_s (seconds since 1970),
    or start_ns and end_ns; label; and stream or session where they differ from line to line.
    """
    try:
        read = read_labels(file, stream=stream, session=session)
    except WrongLinesError as error:
        for line, why in error.faults:
            click.echo(f"line {line}: {bounded(why)}", err=True)
        raise
    added = change(directory, lambda agent: agent.add_labels(read))
    names = sorted({label.label for label in added.labels})
    emit({"file": file.name, "labels": len(read), "new": added.new, "names": names}, as_json)


@labels.command("list")
@click.argument("directory", type=DIRECTORY)
@click.option("--session", default="", help="Of this session.  [default: the newest one]")
@click.option("--stream", default="", help="Of the newest session of this stream.")
@click.option("--withdrawn", is_flag=True, help="Show those that were withdrawn, too.")
@click.option("--limit", default=50, show_default=True, type=COUNT, help="Latest to show.")
@json_option
def list_labels(directory: Path, session: str, stream: str, withdrawn: bool, limit: int, as_json: bool) -> None:
    """List the latest labels of a session, in the order of their time."""
    with reading(directory) as reader:
        known = reader.sessions(StreamId(check_id(stream, "stream")) if stream else None)
        name = SessionId(session or (known[-1].session if known else ""))
        found = reader.labels(name, withdrawn=withdrawn)[-limit:]
    rows = [tuple(str(value) for value in _people(label).values()) for label in found]
    columns = ("ID", "STREAM", "SESSION", "START", "SECONDS", "LABEL", "ORIGIN", "STATE")
    table = Table(columns, rows, right=frozenset({"SECONDS"}), empty=f"no labels in session {name or 'none'}")
    emit([_fields(label) for label in found], as_json, table=table)


@labels.command("withdraw")
@click.argument("directory", type=DIRECTORY)
@click.argument("number", metavar="ID", type=COUNT)
@json_option
def withdraw_label(directory: Path, number: int, as_json: bool) -> None:
    """Take label ID back: nothing uses it any more, and its line stays, marked."""
    label = change(directory, lambda agent: agent.withdraw_label(number))
    emit(_fields(label) if as_json else _people(label), as_json)


def _time(text: str, what: str) -> int:
    try:
        return parse_moment(text)
    except BedsideError as error:
        raise click.BadParameter(error.sentence, param_hint=what) from error


def _people(label: Label) -> dict[str, object]:
    return {
        "id": label.number,
        "stream": label.stream,
        "session": label.session,
        "start": datetime.fromtimestamp(label.start_ns // 10**9, UTC).isoformat().replace("+00:00", "Z"),
        "seconds": f"{(label.end_ns - label.start_ns) / 1e9:.3f}",
        "label": label.label,
        "origin": label.origin,
        "state": "withdrawn" if label.withdrawn else "holds",
    }


def _fields(label: Label) -> dict[str, object]:
    return {
        "id": label.number,
        "stream": label.stream,
        "session": label.session,
        "start_ns": label.start_ns,
        "end_ns": label.end_ns,
        "label": label.label,
        "origin": label.origin,
        "withdrawn": label.withdrawn,
    }
