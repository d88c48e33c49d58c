"""The commands about alarms: list, follow, acknowledge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bedside.agent.buffer.rows import Alarm
from bedside.agent.cli.groups import ListingGroup
from bedside.agent.cli.reach import DIRECTORY, ask, change, reading
from bedside.service.options import COUNT
from bedside.service.output import Table, emit, emit_line, human_age, json_option
from bedside.service.platform import SystemClock

if TYPE_CHECKING:
    from bedside.agent.client import LocalAgent


@click.group("alarms", cls=ListingGroup)
def alarms() -> None:
    """List, follow and acknowledge alarms. Without a command: `list`.

    The rules are in agent.toml. An alarm is open until its value is back and somebody has acknowledged it. Bedside is
    advisory software: these alarms replace none of a monitor's.
    """


@alarms.command("list")
@click.argument("directory", type=DIRECTORY)
@click.option("--open", "open_only", is_flag=True, help="Only those that are open.")
@click.option("--limit", default=20, show_default=True, type=COUNT, help="Newest to show.")
@json_option
def list_alarms(directory: Path, open_only: bool, limit: int, as_json: bool) -> None:
    """List the newest alarms of DIRECTORY, from its database; the agent need not run."""
    now_ns = SystemClock().now_ns()
    with reading(directory) as reader:
        found = reader.alarms(limit, open_only=open_only)
    rows = [
        (
            str(one.number),
            one.rule,
            one.priority,
            one.stream,
            f"{one.value:.4g}",
            human_age(one.raised_ns, now_ns),
            state_of(one),
            one.acknowledged_by,
        )
        for one in found
    ]
    columns = ("ID", "RULE", "PRIORITY", "STREAM", "VALUE", "RAISED", "STATE", "SEEN BY")
    emit([alarm_fields(one) for one in found], as_json, table=Table(columns, rows, empty="no alarms"))


@alarms.command("follow")
@click.argument("directory", type=DIRECTORY)
@json_option
def follow_alarms(directory: Path, as_json: bool) -> None:
    """Print every open alarm, and then each change of one, until interrupted."""

    async def go_on(agent: LocalAgent) -> None:
        async for one in agent.follow_alarms():
            text = f"{one.number}  {one.rule}  {one.priority}  {one.stream}  {one.value:.4g}  {state_of(one)}"
            emit_line(alarm_fields(one), as_json, text)

    ask(directory, go_on)


@alarms.command("ack")
@click.argument("directory", type=DIRECTORY)
@click.argument("number", metavar="ID", type=COUNT)
@click.option("--by", required=True, help="A role or a place, for instance nurse-station-2; never a patient.")
@json_option
def acknowledge_alarm(directory: Path, number: int, by: str, as_json: bool) -> None:
    """Say that somebody has seen alarm ID: it is not escalated any more. A second time changes nothing, and says so."""
    asked_ns = SystemClock().now_ns()
    alarm = change(directory, lambda agent: agent.acknowledge_alarm(number, by))
    people = {"id": alarm.number, "rule": alarm.rule, "state": state_of(alarm), "seen by": alarm.acknowledged_by}
    before = alarm.acknowledged_ns < asked_ns
    if before:
        people["note"] = f"it was acknowledged before, {human_age(alarm.acknowledged_ns, asked_ns)}"
    emit(alarm_fields(alarm) | {"acknowledged_before": before} if as_json else people, as_json)


def state_of(alarm: Alarm) -> str:
    """What is left to be done about an alarm, in a word or two."""
    if alarm.acknowledged_ns:
        return "closed" if alarm.cleared_ns else "seen, lasts"
    if alarm.cleared_ns:
        return "cleared, not seen"
    return "escalated" if alarm.escalated_ns else "raised"


def alarm_fields(alarm: Alarm) -> dict[str, object]:
    """An alarm for programs."""
    return {
        "id": alarm.number,
        "rule": alarm.rule,
        "priority": alarm.priority,
        "stream": alarm.stream,
        "session": alarm.session,
        "value": alarm.value,
        "prediction": alarm.prediction or None,
        "raised_ns": alarm.raised_ns,
        "cleared_ns": alarm.cleared_ns or None,
        "acknowledged_ns": alarm.acknowledged_ns or None,
        "acknowledged_by": alarm.acknowledged_by,
        "escalated_ns": alarm.escalated_ns or None,
        "state": state_of(alarm),
    }
