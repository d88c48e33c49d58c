"""The commands about what a device has for itself of its models."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bedside.agent.cli.groups import ListingGroup
from bedside.agent.cli.model import complete_name
from bedside.agent.cli.reach import DIRECTORY, ask, keys_of, through
from bedside.agent.config import AgentConfig
from bedside.service.output import Table, emit, human_age, json_option
from bedside.service.platform import SystemClock

if TYPE_CHECKING:
    from bedside.agent.personal.noted import PersonalModels
    from bedside.agent.personal.report import Figures
    from bedside.agent.personal.view import PersonalView

_NS_PER_S = 1_000_000_000

_DIRECTORY = click.argument("directory", type=DIRECTORY)
_NAME = click.argument("name", shell_complete=complete_name)


@click.group("personal", cls=ListingGroup)
def personal() -> None:
    """What a device has for itself of its models: local tensors, a part that it tuned, a temperature.

    None of it, and no number about it, ever leaves the device. Without a command: `list`.
    """


@personal.command("list")
@_DIRECTORY
@json_option
def list_personal(directory: Path, as_json: bool) -> None:
    """List what DIRECTORY's device has for itself of every model; no agent need run."""
    found = through(directory, lambda models: models.personal_models(), _noted, changes=False)
    now_ns = SystemClock().now_ns()
    rows = [
        (
            view.name,
            str(len(view.local)),
            view.report.suffix if view.report is not None and view.report.used else "-",
            f"{view.temperature:.2f}",
            _scores(view),
            human_age(view.report.at_s * _NS_PER_S, now_ns) if view.report is not None else "never",
        )
        for view in found
    ]
    columns = ("MODEL", "LOCAL", "TUNED", "TEMPERATURE", "SCORE", "MADE")
    emit([_fields(view) for view in found], as_json, table=Table(columns, rows, empty="no model serves yet"))


@personal.command("show")
@_DIRECTORY
@_NAME
@json_option
def show(directory: Path, name: str, as_json: bool) -> None:
    """Show the global model NAME against the personal one, on the same windows, which no training has seen."""
    _tell(through(directory, partial(_named, name), _noted, changes=False), as_json)


@personal.command("run")
@_DIRECTORY
@_NAME
@json_option
def run(directory: Path, name: str, as_json: bool) -> None:
    """Tune and fit now what agent.toml wants of model NAME, and use it where it is not worse. The agent does it."""
    _tell(ask(directory, lambda agent: agent.make_personal(name)), as_json)


@personal.command("reset")
@_DIRECTORY
@_NAME
@json_option
def reset(directory: Path, name: str, as_json: bool) -> None:
    """Throw away everything that this device has for itself of model NAME: the global one serves at once.

    It is made again when it is due, unless agent.toml says otherwise.
    """
    _tell(through(directory, lambda models: models.reset_personal(name), _noted, changes=True), as_json)


def _noted(config: AgentConfig) -> PersonalModels:
    from bedside.agent.personal.files import PersonalFiles
    from bedside.agent.personal.noted import NotedPersonal
    from bedside.agent.rounds.models import ModelStore

    return NotedPersonal(
        ModelStore(config.state_dir), PersonalFiles(config.state_dir, keys_of(config)), config.personal
    )


async def _named(name: str, models: PersonalModels) -> PersonalView:
    from bedside.agent.rounds.models import no_such_model

    found = {view.name: view for view in await models.personal_models()}
    if name not in found:
        raise no_such_model(name, found)
    return found[name]


def _tell(view: PersonalView, as_json: bool) -> None:
    if as_json:
        emit(_fields(view), as_json=True)
        return
    report = view.report
    lines: dict[str, object] = {
        "model": view.name,
        "local tensors": ", ".join(view.local) or "none",
        "tuned": ", ".join(view.tuned) or "nothing",
        "temperature": f"{view.temperature:.3f}",
    }
    if view.sentence:
        lines["last run"] = view.sentence
    if report is not None:
        lines["found"] = report.sentence
        lines["validation windows"] = f"{report.windows}, of {report.sessions} sessions"
        lines["tuned on"] = f"{report.trained_windows} windows"
        lines["made"] = human_age(report.at_s * _NS_PER_S, SystemClock().now_ns())
    emit(lines, as_json=False)
    if report is not None and report.score:
        forms = {"global": report.of_all, "tuned": report.tuned, "serves": report.serves}
        rows = [(name, *_figures(figures)) for name, figures in forms.items() if figures is not None]
        click.echo()
        columns = ("FORM", report.score.upper(), "LOSS", "CALIBRATION ERROR")
        emit([], as_json=False, table=Table(columns, rows, right=frozenset(columns[1:]), empty="nothing was measured"))


def _figures(figures: Figures) -> tuple[str, str, str]:
    return f"{figures.score:.3f}", f"{figures.loss:.4f}", "-" if figures.ece is None else f"{figures.ece:.3f}"


def _scores(view: PersonalView) -> str:
    report = view.report
    if report is None or report.of_all is None or report.serves is None:
        return "-"
    return f"{report.serves.score:.3f} (global {report.of_all.score:.3f})"


def _fields(view: PersonalView) -> dict[str, object]:
    return {
        "model": view.name,
        "local": list(view.local),
        "tuned": list(view.tuned),
        "temperature": view.temperature,
        "fine_tune": view.fine_tune,
        "fit_temperature": view.fit_temperature,
        "report": msgspec.to_builtins(view.report) if view.report is not None else None,
        "sentence": view.sentence,
    }
