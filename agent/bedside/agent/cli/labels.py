"""The commands about labels: add, import, list, withdraw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from bedside.agent.api.direct import Changes
from bedside.agent.buffer.labels import MAX_LABELS, Added, Fault, WrongLabelsError
from bedside.agent.buffer.rows import Label
from bedside.agent.cli.label_file import MAX_FAULTS, WrongLinesError, parse_moment, read_labels
from bedside.agent.cli.reach import DIRECTORY, change, named, reading
from bedside.core.errors import BedsideError
from bedside.core.ids import SessionId, StreamId
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
@click.option("--value", type=float, help="What was measured, in the unit of the model that learns from it.")
@json_option
def add_label(
    directory: Path, stream: str, start: str, end: str, label: str, value: float | None, as_json: bool
) -> None:
    """Say that STREAM was LABEL from START to END: times as 2026-03-01T08:00:00Z, or seconds since 1970.

    With --value, LABEL is what was measured, named like the output of a model.
    """
    times = _time(start, "START"), _time(end, "END")
    one = Label(StreamId(stream), SessionId(""), *times, label, "cli", value=value)
    added = change(directory, lambda agent: agent.add_labels([one]))
    _warn(added.warnings)
    people = _people(added.labels[0]) | ({} if added.new else {"note": "it was there already"})
    fields = _fields(added.labels[0]) | {"new": bool(added.new), "warnings": added.warnings}
    emit(fields if as_json else people, as_json)


@labels.command("import")
@click.argument("directory", type=DIRECTORY)
@click.argument("file", type=_CSV)
@click.option("--stream", default="", help="Stream of lines that name none.")
@click.option("--session", default="", help="Session of lines that name none.")
@json_option
def import_labels(directory: Path, file: Path, stream: str, session: str, as_json: bool) -> None:
    """Store the labels of a CSV FILE, all of them or none. The same file again adds nothing.

    Where it is long and the disk or the room for labels ends half-way, a part is stored: the same file adds the rest.

    Its first line names the columns: start and end (2026-03-01T08:00:00Z), or start_s and end_s (seconds since 1970),
    or start_ns and end_ns; label; value, where something was measured; and stream or session where they differ from
    line to line.
    """
    read = read_labels(file, stream=stream, session=session)
    lines, asked = list(read.labels), list(read.labels.values())
    try:
        added = change(directory, lambda agent: _store(agent, asked, check_only=bool(read.faults)))
    except WrongLabelsError as error:
        refused = [(lines[fault.index], fault.sentence) for fault in error.faults]
        raise _wrong_lines(file.name, [*read.faults, *refused]) from error
    if read.faults:
        raise _wrong_lines(file.name, read.faults)
    _warn(added.warnings)
    names = sorted({label.label for label in added.labels})
    told = {"file": file.name, "labels": len(asked), "new": added.new, "names": names}
    emit(told | {"warnings": added.warnings} if as_json else told, as_json)


@labels.command("list")
@click.argument("directory", type=DIRECTORY)
@click.option("--session", default="", help="Of this session.  [default: the newest one]")
@click.option("--stream", default="", help="Of all sessions of this stream.")
@click.option("--withdrawn", is_flag=True, help="Show those that were withdrawn, too.")
@click.option("--limit", default=50, show_default=True, type=COUNT, help="Latest to show.")
@json_option
def list_labels(directory: Path, session: str, stream: str, withdrawn: bool, limit: int, as_json: bool) -> None:
    """List the latest labels of a session, or of all sessions of a stream, in the order of their time."""
    with reading(directory) as reader:
        of_session, of_stream = named(directory, reader, session=session, stream=stream)
        if of_stream and not of_session:
            what = f"stream {of_stream}"
            found = reader.latest_labels(StreamId(of_stream), limit, withdrawn=withdrawn)
        else:
            known = reader.sessions() if not of_session else []
            name = SessionId(of_session or (known[-1].session if known else ""))
            what = f"session {name or 'none'}"
            found = reader.labels(name, withdrawn=withdrawn)[-limit:]
    rows = [tuple(str(value) for value in _people(label).values()) for label in found]
    columns = ("ID", "STREAM", "SESSION", "START", "SECONDS", "LABEL", "VALUE", "ORIGIN", "STATE")
    table = Table(columns, rows, right=frozenset({"SECONDS", "VALUE"}), empty=f"no labels in {what}")
    emit([_fields(label) for label in found], as_json, table=table)


@labels.command("withdraw")
@click.argument("directory", type=DIRECTORY)
@click.argument("number", metavar="ID", type=COUNT)
@json_option
def withdraw_label(directory: Path, number: int, as_json: bool) -> None:
    """Take label ID back: nothing uses it any more, and its line stays, marked."""
    label = change(directory, lambda agent: agent.withdraw_label(number))
    emit(_fields(label) if as_json else _people(label), as_json)


def _wrong_lines(name: str, faults: Sequence[tuple[int, str]]) -> WrongLinesError:
    """The error of a file, after every wrong line was named."""
    wrong = WrongLinesError(name, sorted(faults)[:MAX_FAULTS])
    for line, why in wrong.faults:
        click.echo(f"{bounded(name)}, line {line}: {bounded(why)}", err=True)
    return wrong


async def _store(agent: Changes, asked: Sequence[Label], *, check_only: bool) -> Added:
    """Store in slices, which the agent takes in turns with its other work, once all of them have been looked at."""
    slices = [(at, asked[at : at + MAX_LABELS]) for at in range(0, len(asked), MAX_LABELS)]
    faults: list[Fault] = []
    for at, part in slices if check_only or len(slices) > 1 else ():
        try:
            await agent.add_labels(part, check_only=True)
        except WrongLabelsError as error:
            faults += [replace(fault, index=fault.index + at) for fault in error.faults]
    if faults:
        raise WrongLabelsError(faults)
    done = [] if check_only else [await agent.add_labels(part) for _, part in slices]
    return Added(
        tuple(label for one in done for label in one.labels),
        sum(one.new for one in done),
        tuple(sentence for one in done for sentence in one.warnings),
    )


def _warn(warnings: Sequence[str]) -> None:
    for sentence in warnings:
        click.echo(f"warning: {bounded(sentence)}", err=True)


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
        "value": "" if label.value is None else f"{label.value:g}",
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
        "value": label.value,
        "origin": label.origin,
        "withdrawn": label.withdrawn,
    }
