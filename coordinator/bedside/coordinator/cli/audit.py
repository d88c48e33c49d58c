"""`bedside audit`: recompute finished rounds, here or on another machine, and look at the log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bedside.coordinator.cli.audit_source import (
    fetch_record,
    opened_archive,
    round_request,
    socket_reader,
    write_archive,
)
from bedside.coordinator.cli.link import ask, socket_option
from bedside.coordinator.cli.log_view import log_data, log_lines
from bedside.core.audit.report import Report
from bedside.core.errors import ConfigError, MalformedError
from bedside.proto.v1.audit_pb2 import LogStatus
from bedside.proto.v1.common_pb2 import Empty
from bedside.service.output import Table, emit, human_bytes, json_option

if TYPE_CHECKING:
    from bedside.proto.v1.operator_pb2_grpc import OperatorServiceAsyncStub

_KEY_BYTES = 32
_FILE = click.Path(path_type=Path, dir_okay=False)
_ROOT_HELP = "Public key of the federation root, 64 hexadecimal digits, from somewhere else than the coordinator."


@click.group()
def audit() -> None:
    """Recompute finished rounds from stored bytes, and look at the log.

    Every signature, every set, every sum and the model that came of it: `round` asks a running coordinator for the
    bytes, `export` and `verify` carry them to another machine. The exit status is 0 when everything holds and 1 when
    something does not; the first thing that does not is named.
    """


@audit.command(name="round")
@click.argument("named", metavar="TASK/ROUND")
@click.option("--root-pk", help=f"{_ROOT_HELP} Default: the one that the coordinator has pinned.")
@socket_option
@json_option
@click.pass_context
def round_(context: click.Context, named: str, root_pk: str | None, socket: str, as_json: bool) -> None:
    """Recompute a round of a running coordinator: TASK, TASK/ROUND, or the digest of its plan."""
    from bedside.core.audit.round import audit_round

    request = round_request(named)
    pinned = _root(root_pk) if root_pk else None

    async def look(stub: OperatorServiceAsyncStub) -> Report:
        record, _ = await fetch_record(stub, request)
        root = pinned or (await stub.GetLogStatus(Empty())).root_pk
        return await asyncio.to_thread(audit_round, record, socket_reader(stub), root)

    context.exit(_show(ask(socket, look), as_json))


@audit.command()
@click.argument("named", metavar="TASK/ROUND")
@click.option("--out", required=True, type=_FILE, help="The file to write, for instance round.tar.")
@socket_option
@json_option
def export(named: str, out: Path, socket: str, as_json: bool) -> None:
    """Write everything that is needed to recompute a round on another machine.

    The file holds what the coordinator holds: signed messages, masked uploads, sums of masks, the opened sum and the
    model. It opens no single device's update.
    """
    request = round_request(named)

    async def look(stub: OperatorServiceAsyncStub) -> int:
        record, data = await fetch_record(stub, request)
        return await asyncio.to_thread(write_archive, out, record, data, socket_reader(stub))

    size = ask(socket, look)
    emit({"file": out, "size_bytes": size}, as_json, table=Table(("file", "size"), [[str(out), human_bytes(size)]]))


@audit.command()
@click.argument("archive", type=_FILE)
@click.option("--root-pk", required=True, help=_ROOT_HELP)
@json_option
@click.pass_context
def verify(context: click.Context, archive: Path, root_pk: str, as_json: bool) -> None:
    """Recompute an exported round. Needs this program, the file and the root's public key, and no coordinator."""
    from bedside.core.audit.round import audit_round

    root = _root(root_pk)
    if not archive.exists():
        raise ConfigError("no-archive", f"there is no file {archive}", remedy="bedside audit export writes one")
    with opened_archive(archive) as (record, read):
        report = audit_round(record, read, root)
    context.exit(_show(report, as_json))


@audit.command()
@socket_option
@json_option
def log(socket: str, as_json: bool) -> None:
    """Show the log's size and root, which trustees vouch for it, and their verdicts on rounds."""

    async def look(stub: OperatorServiceAsyncStub) -> LogStatus:
        return await stub.GetLogStatus(Empty())

    data = log_data(ask(socket, look))
    if as_json:
        emit(data, as_json=True)
    else:
        click.echo("\n".join(log_lines(data)))


def _show(report: Report, as_json: bool) -> int:
    """Print the checklist; the exit status."""
    name = f"round {report.round_number} of task {report.task}" if report.task else "this round"
    failure = report.failure
    verdict = f"{name} does not hold: {failure.sentence}" if failure else f"{name} holds"
    data = {
        "task": report.task,
        "round_number": report.round_number,
        "plan_digest": report.plan_digest,
        "result_digest": report.result_digest,
        "holds": report.holds,
        "code": failure.code if failure else "",
        "sentence": failure.sentence if failure else "",
        "checks": report.lines,
    }
    rows = [
        ["holds" if line.holds else "BROKEN", line.code, "" if line.cohort is None else str(line.cohort), line.sentence]
        for line in report.lines
    ]
    emit(data, as_json, table=Table(("", "check", "cohort", "what"), rows, title=verdict))
    return 1 if failure else 0


def _root(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise MalformedError("bad-key", "--root-pk is not a key of 64 hexadecimal digits", remedy="copy all 64 digits")
    return key
