"""`bedside round`: start, watch, show, list and stop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bedside.coordinator.cli.bundle_file import manifest_of, send_chunks
from bedside.coordinator.cli.cohort_check import check_cohorts
from bedside.coordinator.cli.link import CALL_TIMEOUT_S, ask, socket_option
from bedside.coordinator.cli.present import round_data, summary_data
from bedside.coordinator.cli.task_options import TaskOptions, start_request, task_options
from bedside.coordinator.cli.watch import drawing, news, plain_lines
from bedside.core.errors import ProtocolError
from bedside.core.signing import digest
from bedside.proto.v1.common_pb2 import Empty
from bedside.proto.v1.operator_pb2 import (
    ListRoundsRequest,
    PlanFile,
    RoundDetail,
    RoundList,
    RoundQuery,
    RoundSummary,
    StopTaskRequest,
    TaskStarted,
)
from bedside.service.bundle_file import read_bundle
from bedside.service.files import write_durable
from bedside.service.options import COUNT, NUMBER
from bedside.service.output import Table, emit, emit_line, human_duration, json_option

if TYPE_CHECKING:
    from bedside.proto.v1.operator_pb2_grpc import OperatorServiceAsyncStub

FAILED_STATUS = 1
PLAN_FILE_MODE = 0o644


@click.group(name="round")
def round_() -> None:
    """Start, watch and list rounds."""


@round_.command()
@task_options
@click.option("--watch", "watching", is_flag=True, help="Watch until the task has ended.")
@socket_option
@json_option
@click.pass_context
def start(
    context: click.Context, options: TaskOptions, bundle: Path, watching: bool, socket: str, as_json: bool
) -> None:
    """Import a bundle and start a task on it; a task that has ended goes on where it was."""
    data = read_bundle(bundle)
    request = start_request(options, manifest_of(data))

    async def begin(stub: OperatorServiceAsyncStub) -> TaskStarted:
        imported = await stub.ImportBundle(send_chunks(data), timeout=CALL_TIMEOUT_S)
        request.bundle_digest = imported.bundle_digest
        check_cohorts(request, await stub.FleetStatus(Empty(), timeout=CALL_TIMEOUT_S))
        return await stub.StartTask(request, timeout=CALL_TIMEOUT_S)

    started = ask(socket, begin)
    if not watching:
        last = started.first_round + request.rounds - 1
        facts = {"task": started.task, "first_round": started.first_round, "last_round": last}
        emit(facts, as_json)
        return
    context.exit(_watch(socket, started.task, started.first_round, follow=True, as_json=as_json))


@round_.command()
@click.option("--task", default="", help="Task; default: the newest.")
@click.option("--round", "number", type=NUMBER, default=0, help="Number; default: the newest.")
@click.option("--follow", is_flag=True, help="Go on with the task's following rounds.")
@socket_option
@json_option
@click.pass_context
def watch(context: click.Context, task: str, number: int, follow: bool, socket: str, as_json: bool) -> None:
    """Watch a round until it ends; the exit status is 1 when it failed."""
    context.exit(_watch(socket, task, number, follow=follow, as_json=as_json))


@round_.command()
@click.option("--task", default="", help="Task; default: the newest.")
@click.option("--round", "number", type=NUMBER, default=0, help="Number; default: the newest.")
@socket_option
@json_option
def show(task: str, number: int, socket: str, as_json: bool) -> None:
    """Show one round: phases, who took part, who refused and why."""

    async def look(stub: OperatorServiceAsyncStub) -> RoundDetail:
        return await stub.ShowRound(RoundQuery(task=task, round_number=number), timeout=CALL_TIMEOUT_S)

    detail = ask(socket, look)
    if as_json:
        emit(round_data(detail), as_json=True)
    else:
        click.echo("\n".join(plain_lines(detail)))


@round_.command(name="list")
@click.option("--task", default="", help="Only this task.")
@click.option("--limit", type=COUNT, default=20, show_default=True, help="Newest rounds to show.")
@socket_option
@json_option
def list_(task: str, limit: int, socket: str, as_json: bool) -> None:
    """List the newest rounds."""

    async def look(stub: OperatorServiceAsyncStub) -> RoundList:
        return await stub.ListRounds(ListRoundsRequest(task=task, limit=limit), timeout=CALL_TIMEOUT_S)

    rounds = ask(socket, look).rounds
    if task and not rounds:
        raise ProtocolError("no-round", f"no round of task {task[:64]} is known", remedy="bedside round list")
    columns = ["task", "round", "phase", "devices", "refused", "took", "reason"]
    table = Table(columns, [_row(one) for one in rounds], right=frozenset(columns[3:6]), empty="no round yet")
    emit([summary_data(one) for one in rounds], as_json, table=table)


@round_.command()
@click.option("--task", required=True, help="Task.")
@click.option("--round", "number", type=NUMBER, default=0, help="Number; default: the newest.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write.")
@socket_option
@json_option
def plan(task: str, number: int, out: Path, socket: str, as_json: bool) -> None:
    """Write a round's signed plan to a file that every site can judge with `bedside policy check`.

    The file holds signed messages only: plan, federation, rosters, the model's manifest and the previous result. It
    shows no contribution, and may be sent to anybody.
    """

    async def export(stub: OperatorServiceAsyncStub) -> PlanFile:
        return await stub.ExportPlan(RoundQuery(task=task, round_number=number), timeout=CALL_TIMEOUT_S)

    exported = ask(socket, export)
    write_durable(out, exported.SerializeToString(deterministic=True), PLAN_FILE_MODE)
    facts = {"task": task, "plan_digest": digest(exported.plan.payload), "file": str(out)}
    emit(facts, as_json)


@round_.command()
@click.option("--task", required=True, help="Task to stop.")
@click.option("--at-once", is_flag=True, help="Close the open round too; its contributions are not used.")
@socket_option
def stop(task: str, at_once: bool, socket: str) -> None:
    """Stop a task after its open round."""

    async def end(stub: OperatorServiceAsyncStub) -> None:
        await stub.StopTask(StopTaskRequest(task=task, at_once=at_once), timeout=CALL_TIMEOUT_S)

    ask(socket, end)
    click.echo(f"task {task} stops now" if at_once else f"task {task} stops after its open round")


def _watch(socket: str, task: str, number: int, *, follow: bool, as_json: bool) -> int:
    """Draw until the end; 1 when a round failed."""
    query = RoundQuery(task=task, round_number=number, follow_task=follow)
    live = sys.stdout.isatty() and not as_json

    async def look(stub: OperatorServiceAsyncStub) -> int:
        return await (_watch_live(stub, query) if live else _watch_plain(stub, query, as_json=as_json))

    return ask(socket, look)


async def _watch_plain(stub: OperatorServiceAsyncStub, query: RoundQuery, *, as_json: bool) -> int:
    before: RoundDetail | None = None
    failed = False
    async for detail in stub.WatchRound(query):
        if as_json:
            emit_line(round_data(detail), as_json, "")
        for line in () if as_json else news(detail, before):
            emit_line({}, as_json=False, text=line)
        before = detail
        failed = failed or _has_failed(detail)
    return FAILED_STATUS if failed else 0


async def _watch_live(stub: OperatorServiceAsyncStub, query: RoundQuery) -> int:
    from rich.live import Live

    failed = False
    with Live(refresh_per_second=8) as view:
        plan = b""
        async for detail in stub.WatchRound(query):
            if plan and detail.summary.plan_digest != plan:
                view.console.print(view.renderable)
            plan = detail.summary.plan_digest
            view.update(drawing(detail))
            failed = failed or _has_failed(detail)
    return FAILED_STATUS if failed else 0


def _has_failed(detail: RoundDetail) -> bool:
    return bool(detail.summary.finished_at_s) and detail.summary.phase == "failed"


def _row(one: RoundSummary) -> list[str]:
    took = human_duration(one.finished_at_s - one.started_at_s) if one.finished_at_s else ""
    return [
        one.task,
        str(one.round_number),
        one.phase,
        str(one.contributors),
        str(one.refusals),
        took,
        one.reason,
    ]
