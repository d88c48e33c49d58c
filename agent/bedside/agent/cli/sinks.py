"""The commands about sinks: list, preview, send."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bedside.agent.cli.error_words import error_words
from bedside.agent.cli.groups import ListingGroup
from bedside.agent.cli.kinds import complete_kinds, show_kinds
from bedside.agent.cli.looking import ask_status
from bedside.agent.cli.moment import MOMENT
from bedside.agent.cli.reach import DIRECTORY, ask, keys_of
from bedside.agent.cli.sink_words import sink_fields
from bedside.agent.config import BUFFER_NAME, AgentConfig, SinkConfig, load_agent_config
from bedside.core.errors import ProtocolError, UnavailableError
from bedside.core.limits import MAX_TEXT_CHARS
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.identity import DIRECTORY_NAME, find_identity
from bedside.service.options import COUNT
from bedside.service.output import Table, emit, human_duration, json_option
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.service.text import bounded

if TYPE_CHECKING:
    from bedside.agent.client import LocalAgent


@click.group("sinks", cls=ListingGroup)
def sinks() -> None:
    """What leaves this device, and how that goes. Without a command: `list`.

    A sink is a table [[sinks]] in agent.toml; `kinds` tells which kinds there are, and what each takes. Where there is
    none, nothing leaves but what rounds and heartbeats send.
    """


@sinks.command("list")
@click.argument("directory", type=DIRECTORY)
@json_option
def list_sinks(directory: Path, as_json: bool) -> None:
    """List the sinks of the running agent of DIRECTORY."""
    found = ask_status(directory).sinks
    columns = ("NAME", "KIND", "MODE", "STATE", "SENT", "WAITING", "SKIPPED", "REFUSED", "LAST SENT")
    right = frozenset({"SENT", "WAITING", "SKIPPED", "REFUSED"})
    rows = [
        (
            *(sink.name, sink.kind, sink.mode, "failed, tries again" if sink.state == "waiting" else sink.state),
            *(str(sink.sent), str(sink.waiting), str(sink.skipped), str(sink.refused)),
            f"{human_duration(sink.last_sent_age_ms // 1_000)} ago" if sink.HasField("last_sent_age_ms") else "never",
        )
        for sink in found
    ]
    table = Table(columns, rows, right=right, empty="no sinks: nothing leaves")
    emit([sink_fields(sink) for sink in found], as_json, table=table)
    for sink in found if not as_json else ():
        if sink.last_error:
            click.echo(f"\n{sink.name}: {error_words(sink)}")


@sinks.command("kinds")
@click.argument("kind", default="", shell_complete=complete_kinds("bedside.agent.sinks.registry"))
@json_option
def kinds(kind: str, as_json: bool) -> None:
    """List the kinds of sinks of this installation, or the options that KIND takes in [sinks.options]."""
    from bedside.agent.sinks.registry import KINDS

    show_kinds(KINDS, kind, as_json)


@sinks.command("preview")
@click.argument("directory", type=DIRECTORY)
@click.argument("name")
@click.option("--limit", default=1, show_default=True, type=COUNT, help="Newest rows of each sort to show.")
@json_option
def preview(directory: Path, name: str, limit: int, as_json: bool) -> None:
    """Print what sink NAME would send for the newest rows that are stored. Nothing is sent; the agent need not run.

    What is printed is a patient's, as what is sent is.
    """
    from bedside.agent.buffer.outgoing import OutgoingReader
    from bedside.agent.sinks.kind import SinkContext
    from bedside.agent.sinks.queue import ORDER, Queue
    from bedside.agent.sinks.registry import build_sink, typed_sink

    config = load_agent_config(directory)
    configured = _named(config, name)
    options = typed_sink(configured)
    device = find_identity(config.state_dir / DIRECTORY_NAME, Role.ROLE_DEVICE).subject
    context = SinkContext(SystemClock(), SystemEntropy(), directory.absolute(), device)
    made = build_sink(configured.kind, options, context)
    path = config.state_dir / BUFFER_NAME
    if not path.exists():
        raise _nothing(name)
    with closing(OutgoingReader(path, keys_of(config))) as reader:
        queue = Queue(options, {}, reader, device)
        batches = [queue.newest(what, limit) for what in ORDER if what in options.send]
    texts = [made.preview(batch.items).rstrip("\n") for batch in batches if batch.items]
    if not texts:
        raise _nothing(name)
    if as_json:
        emit([{"sink": name, "text": text} for text in texts], as_json=True)
        return
    for line in "\n\n".join(texts).split("\n"):
        click.echo(bounded(line, max(len(line), MAX_TEXT_CHARS)))


@sinks.command("send")
@click.argument("directory", type=DIRECTORY)
@click.argument("name")
@click.option(
    "--since",
    "since_ns",
    type=MOMENT,
    default=None,
    help="Send again what is stored from then on: 2026-03-01T08:00:00Z, or seconds since 1970.",
)
@json_option
def send(directory: Path, name: str, since_ns: int | None, as_json: bool) -> None:
    """Deliver now what waits for sink NAME, whatever its mode; with --since, again what was sent before."""

    async def deliver(agent: LocalAgent) -> tuple[int, int, str]:
        return await agent.send_now(name, since_ns)

    sent, failed, error = ask(directory, deliver)
    if failed:
        raise UnavailableError(
            "sink-failed", f"{sent} delivered, {failed} not: {error}", remedy="they wait, and are tried again"
        )
    emit({"sink": name, "sent": sent}, as_json)


def _named(config: AgentConfig, name: str) -> SinkConfig:
    for one in config.sinks:
        if one.name == name:
            return one
    known = ", ".join(one.name for one in config.sinks)
    raise ProtocolError(
        "no-such-sink",
        f"there is no sink {bounded(name, 64)!r} in agent.toml",
        remedy=f"the sinks are {known}" if known else "see docs/sinks.md",
    )


def _nothing(name: str) -> UnavailableError:
    return UnavailableError(
        "nothing-stored", f"nothing is stored that sink {name} would send", remedy="bedside agent run DIRECTORY"
    )
