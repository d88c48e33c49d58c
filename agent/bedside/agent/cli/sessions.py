"""The commands about sessions: open, close, list, consent, and forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from bedside.agent.buffer.kin import may_be_of
from bedside.agent.buffer.rows import Session
from bedside.agent.cli.reach import DIRECTORY, change, named, reading
from bedside.agent.config import load_agent_config
from bedside.agent.naming import find_session
from bedside.core.errors import ProtocolError, RefusedError
from bedside.core.ids import StreamId
from bedside.service.options import COUNT
from bedside.service.output import Table, emit, human_age, json_option
from bedside.service.platform import SystemClock

_NS_PER_MS = 1_000_000


@click.group("session")
def sessions() -> None:
    """Open, close and list sessions: the times in which a stream belongs to one person.

    A session has a random name that stays on this device. Every sample, label, prediction and alarm belongs to one, no
    window crosses one, and erasure and consent are by session. A stream that is silent for long enough begins another
    session by itself.
    """


@sessions.command("open")
@click.argument("directory", type=DIRECTORY)
@click.argument("stream")
@click.option(
    "--consent/--no-consent",
    "consent",
    default=None,
    help="Whether its windows may be trained on.  [default: no where it was refused before, else as agent.toml says]",
)
@click.option("--new", "new_stream", is_flag=True, help="STREAM may be one that is yet to come.")
@json_option
def open_session(directory: Path, stream: str, consent: bool | None, new_stream: bool, as_json: bool) -> None:
    """Begin a session on STREAM, and end the one before: what arrives from now on belongs to it.

    --no-consent holds for the sessions that follow by themselves, too, until one is opened with --consent, or consent
    is given to the open one.
    """
    session = change(
        directory,
        lambda agent: agent.open_session(stream, consent_training=consent, origin="cli", new_stream=new_stream),
    )
    _show(session, as_json)


@sessions.command("close")
@click.argument("directory", type=DIRECTORY)
@click.argument("stream")
@json_option
def close_session(directory: Path, stream: str, as_json: bool) -> None:
    """End the session of STREAM. Signal that still arrives begins another one by itself."""
    session = change(directory, lambda agent: agent.close_session(stream))
    with reading(directory) as reader:
        refused = reader.refused(session.stream) or not session.consent_training
    consent = load_agent_config(directory).buffer.consent_training and not refused
    follows = f"signal that still arrives begins another session, {'with' if consent else 'without'} consent to train"
    _show(session, as_json, {"next_consent_training": consent} if as_json else {"what follows": follows})


@sessions.command("consent")
@click.argument("directory", type=DIRECTORY)
@click.argument("session")
@click.argument("answer", type=click.Choice(["give", "withdraw"]))
@json_option
def consent_session(directory: Path, session: str, answer: str, as_json: bool) -> None:
    """Give or withdraw consent to train on SESSION.

    Without it the session's windows are in no training from the next round on; predictions and alarms go on. What was
    learned before stays in models: a sum cannot be taken apart. What is withdrawn from a stream's newest session, or
    given to its open one, holds for those that follow by themselves, too. To erase the session, see `bedside agent
    forget`.
    """
    _show(change(directory, lambda agent: agent.set_consent(session, training=answer == "give")), as_json)


@sessions.command("list")
@click.argument("directory", type=DIRECTORY)
@click.option("--stream", default="", help="Of this stream only.")
@click.option("--limit", default=50, show_default=True, type=COUNT, help="Newest to show.")
@json_option
def list_sessions(directory: Path, stream: str, limit: int, as_json: bool) -> None:
    """List the newest sessions of DIRECTORY, the oldest first.

    MAY BE OF: nobody has said whose a session is that began by itself or came late; it may be of the person of this
    one, and is to be erased with it.
    """
    now_ns = SystemClock().now_ns()
    with reading(directory) as reader:
        _, name = named(directory, reader, session="", stream=stream)
        found = reader.sessions(StreamId(name) if name else None)
    kin, found = may_be_of(found), found[-limit:]
    rows = [
        (
            one.session,
            one.stream,
            human_age(one.opened_ns, now_ns),
            "open" if one.closed_ns is None else human_age(one.closed_ns, now_ns),
            "yes" if one.consent_training else "no",
            one.origin,
            *([kin.get(one.session, "")] if kin else ()),
        )
        for one in found
    ]
    columns = ("SESSION", "STREAM", "OPENED", "CLOSED", "TRAINING", "ORIGIN", *(["MAY BE OF"] if kin else ()))
    fields = [{**_fields(one), "may_be_of": kin.get(one.session)} for one in found]
    emit(fields, as_json, table=Table(columns, rows, empty="no sessions yet"))


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.argument("session")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def forget(directory: Path, session: str, yes: bool, as_json: bool) -> None:
    """Erase everything of SESSION on this device: signal, records, windows, labels, predictions, alarms.

    The pages of the file are overwritten before it returns. Signal of an open session that still arrives belongs to
    another one. What a model learned from it in past rounds stays in that model.

    Sessions that came late or began by themselves before somebody else's was opened may be of the same person. They are
    named, and stay until they are forgotten, too.
    """
    others: list[str] = []
    try:
        with reading(directory) as reader:
            session = find_session(reader, session).session
            others = [other for other, its in may_be_of(reader.sessions()).items() if its == session]
    except ProtocolError:
        if not yes:
            raise  # else it may be gone already, and its pages are to be overwritten
    if not yes:
        _ask(session)
    rows = change(directory, lambda agent: agent.forget(session))
    _tell_erased(session, rows, others, as_json)


def _ask(session: str) -> None:
    """Have a person agree. Raises RefusedError `not-erased` where nobody does."""
    try:
        agreed = click.confirm(f"Erase session {session} for good?", err=True)
    except click.Abort as error:
        raise RefusedError(
            "not-erased", "nothing was erased: nobody answered", remedy="without a terminal, use --yes"
        ) from error
    if not agreed:
        raise RefusedError("not-erased", "nothing was erased: the answer was no")


def _tell_erased(session: str, rows: Mapping[str, int], others: Sequence[str], as_json: bool) -> None:
    table = Table(
        ("TABLE", "ROWS ERASED"),
        [(name, str(count)) for name, count in sorted(rows.items()) if count],
        right=frozenset({"ROWS ERASED"}),
        empty="there was nothing but the session's own row",
    )
    fields = {"session": session, "erased": dict(sorted(rows.items())), "may_be_of_the_same_person": list(others)}
    emit(fields, as_json, table=table)
    if others and not as_json:
        click.echo(f"\nnot erased, and may be of the same person: {', '.join(others)}")


def _show(session: Session, as_json: bool, more: Mapping[str, object] | None = None) -> None:
    now_ns = SystemClock().now_ns()
    people = {
        "session": session.session,
        "stream": session.stream,
        "opened": human_age(session.opened_ns, now_ns),
        "closed": "open" if session.closed_ns is None else human_age(session.closed_ns, now_ns),
        "consent to train": session.consent_training,
        "origin": session.origin,
    }
    emit({**(_fields(session) if as_json else people), **(more or {})}, as_json)


def _fields(session: Session) -> dict[str, object]:
    return {
        "session": session.session,
        "stream": session.stream,
        "opened_ms": session.opened_ns // _NS_PER_MS,
        "closed_ms": None if session.closed_ns is None else session.closed_ns // _NS_PER_MS,
        "opened_ns": session.opened_ns,
        "closed_ns": session.closed_ns,
        "consent_training": session.consent_training,
        "origin": session.origin,
    }
