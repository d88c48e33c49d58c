"""The commands about how a model comes to serve: list and show, roll back, accept, promote, reject, shadow."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from bedside.agent.cli.groups import ListingGroup
from bedside.agent.cli.reach import DIRECTORY, through
from bedside.agent.config import AgentConfig, load_agent_config
from bedside.core.errors import BedsideError, ProtocolError
from bedside.service.output import Table, emit, human_age, json_option
from bedside.service.platform import SystemClock

if TYPE_CHECKING:
    from bedside.agent.rounds.slots import Verdict
    from bedside.agent.serving.view import ModelSlots, ShadowView, SlotView

_SHORT_CHARS = 12
_NS_PER_S = 1_000_000_000

Result = TypeVar("Result")


def complete_name(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Complete the name of a model by those that are noted in the directory typed before it."""
    from bedside.agent.rounds.models import ModelStore

    with suppress(BedsideError, OSError):
        slots = ModelStore(load_agent_config(context.params["directory"]).state_dir).slots()
        return [name for name in slots if name.startswith(begun)]
    return []


_DIRECTORY = click.argument("directory", type=DIRECTORY)
_NAME = click.argument("name", shell_complete=complete_name)


@click.group("model", cls=ListingGroup)
def model() -> None:
    """Which model serves, and which may come to. Without a command: `list`.

    A model that would replace another is a candidate first: compared on labelled windows that are held out, and, where
    agent.toml says so, run beside the other one for a while. The one before it stays at hand.
    """


@model.command("list")
@_DIRECTORY
@json_option
def list_models(directory: Path, as_json: bool) -> None:
    """List what serves on DIRECTORY's device, what is at hand to return to, and what may come; no agent need run."""
    found = _look(directory, lambda slots: slots.model_slots())
    rows = [
        (
            slot.name,
            _short(slot.current),
            _short(slot.previous),
            f"{_short(slot.candidate)} ({slot.stage})" if slot.candidate else "-",
            _decision(slot),
        )
        for slot in found
    ]
    columns = ("MODEL", "SERVES", "BEFORE IT", "CANDIDATE", "LAST DECISION")
    empty = "no model serves yet: name one in agent.toml, or wait for the first plan"
    emit([_fields(slot) for slot in found], as_json, table=Table(columns, rows, empty=empty))


@model.command("show")
@_DIRECTORY
@_NAME
@json_option
def show(directory: Path, name: str, as_json: bool) -> None:
    """Show model NAME with what was decided about it, the newest last. The numbers never leave this device."""
    slot = _look(directory, partial(_named, name))
    if as_json:
        emit(_fields(slot), as_json=True)
        return
    lines: dict[str, object] = {
        "model": slot.name,
        "serves": slot.current,
        "before it": slot.previous or "nothing",
        "candidate": f"{slot.candidate} ({slot.stage})" if slot.candidate else "none",
    }
    if slot.waiting:
        lines["waits behind it"] = slot.waiting
    if slot.withdrawn:
        lines["put away"] = ", ".join(map(_short, slot.withdrawn))
    if slot.concern:
        lines["look at it"] = f"it {slot.concern}"
    emit(lines, as_json=False)
    age = partial(human_age, now_ns=SystemClock().now_ns())
    rows = [
        (age(one.at_s * _NS_PER_S), _short(one.model), one.outcome, _number(one.new), _number(one.old), one.sentence)
        for one in slot.verdicts
    ]
    columns = ("WHEN", "MODEL", "DECISION", "SCORE", "OF THE OTHER", "WHY")
    click.echo()
    emit([], as_json=False, table=Table(columns, rows, empty="nothing had to be decided yet"))


@model.command("rollback")
@_DIRECTORY
@_NAME
@json_option
def rollback(directory: Path, name: str, as_json: bool) -> None:
    """Serve what served before model NAME's current one, at once.

    What is rolled back does not come back by itself, until `accept`, or until a newer one comes.
    """
    _told(_change(directory, lambda slots: slots.roll_back_model(name)), as_json)


@model.command("accept")
@_DIRECTORY
@_NAME
@json_option
def accept(directory: Path, name: str, as_json: bool) -> None:
    """Serve the newest of model NAME that was refused, rejected or rolled back after all."""
    _told(_change(directory, lambda slots: slots.accept_model(name)), as_json)


@model.command("promote")
@_DIRECTORY
@_NAME
@json_option
def promote(directory: Path, name: str, as_json: bool) -> None:
    """Serve the candidate of model NAME now, whatever was or will be found."""
    _told(_change(directory, lambda slots: slots.promote_model(name)), as_json)


@model.command("reject")
@_DIRECTORY
@_NAME
@json_option
def reject(directory: Path, name: str, as_json: bool) -> None:
    """Put the candidate of model NAME away, or agree that one was refused."""
    _told(_change(directory, lambda slots: slots.reject_model(name)), as_json)


@model.command("shadow")
@_DIRECTORY
@_NAME
@json_option
def shadow(directory: Path, name: str, as_json: bool) -> None:
    """Show where the candidate of model NAME and what serves differ on live windows, since the agent started."""
    slot = _look(directory, partial(_named, name))
    run = slot.shadow
    if run is None:
        raise ProtocolError(
            "no-shadow-run",
            f"no candidate of {name} has run in the shadow since the agent started",
            remedy="set shadow_windows in [serving] of agent.toml",
        )
    if as_json:
        emit(_shadow_fields(slot, run), as_json=True)
        return
    click.echo(
        f"{run.windows} of {run.wanted} windows, {run.disagreement:.1%} decided differently,"
        f" {run.dropped} too fast for it, {run.failed} without an answer"
    )
    facts = run.latency
    if facts.count:
        click.echo(f"the candidate takes {facts.p50_us / 1e3:.2f}/{facts.p99_us / 1e3:.2f} ms (p50/p99)")
    rows = [
        (old, new, str(windows), f"{windows / run.windows:.1%}")
        for (old, new), windows in sorted(run.pairs.items(), key=lambda pair: (pair[0][0] == pair[0][1], -pair[1]))
    ]
    columns = ("SERVES AND SAYS", "CANDIDATE SAYS", "WINDOWS", "SHARE")
    table = Table(columns, rows, right=frozenset({"WINDOWS", "SHARE"}), empty="no window was decided by both yet")
    emit([], as_json=False, table=table)


def _look(directory: Path, work: Callable[[ModelSlots], Coroutine[None, None, Result]]) -> Result:
    return through(directory, work, _noted, changes=False)


def _change(directory: Path, work: Callable[[ModelSlots], Coroutine[None, None, Result]]) -> Result:
    return through(directory, work, _noted, changes=True)


def _noted(config: AgentConfig) -> ModelSlots:
    from bedside.agent.rounds.models import ModelStore
    from bedside.agent.serving.noted import NotedSlots

    return NotedSlots(ModelStore(config.state_dir), SystemClock())


async def _named(name: str, slots: ModelSlots) -> SlotView:
    from bedside.agent.rounds.models import no_such_model

    found = {slot.name: slot for slot in await slots.model_slots()}
    if name not in found:
        raise no_such_model(name, found)
    return found[name]


def _told(slot: SlotView, as_json: bool) -> None:
    """Print what serves now."""
    emit(_fields(slot) if as_json else {"model": slot.name, "serves": slot.current}, as_json)


def _decision(slot: SlotView) -> str:
    if not slot.verdicts:
        return "-"
    newest = slot.verdicts[-1]
    scored = (
        f" ({newest.new:.3f} against {newest.old:.3f})" if newest.old is not None and newest.new is not None else ""
    )
    return f"{_short(newest.model)} {newest.outcome}{scored}"


def _fields(slot: SlotView) -> dict[str, object]:
    return {
        "model": slot.name,
        "current": slot.current,
        "previous": slot.previous,
        "candidate": slot.candidate,
        "stage": slot.stage,
        "waiting": slot.waiting,
        "withdrawn": list(slot.withdrawn),
        "concern": slot.concern,
        "verdicts": [_verdict_fields(one) for one in slot.verdicts],
        "shadow": _shadow_fields(slot, slot.shadow) if slot.shadow is not None else None,
    }


def _verdict_fields(one: Verdict) -> dict[str, object]:
    return {
        "model": one.model,
        "outcome": one.outcome,
        "sentence": one.sentence,
        "score": one.score,
        "windows": one.windows,
        "old": one.old,
        "new": one.new,
        "at_s": one.at_s,
    }


def _shadow_fields(slot: SlotView, run: ShadowView) -> dict[str, object]:
    return {
        "model": slot.name,
        "candidate": slot.candidate,
        "stage": slot.stage,
        "wanted": run.wanted,
        "windows": run.windows,
        "disagreement": round(run.disagreement, 6),
        "failed": run.failed,
        "dropped": run.dropped,
        "latency_us": {"p50": run.latency.p50_us, "p99": run.latency.p99_us, "max": run.latency.max_us},
        "pairs": [{"current": old, "candidate": new, "windows": windows} for (old, new), windows in run.pairs.items()],
        "error": run.error,
    }


def _short(digest: str) -> str:
    return digest[:_SHORT_CHARS] or "-"


def _number(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"
