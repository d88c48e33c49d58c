"""The demo on a terminal: a column per hospital, the round's phases, and what the coordinator sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bedside.agent.cli.sparks import sparkline
from bedside.demo.board import Board
from bedside.demo.cast import HospitalCast
from bedside.demo.eyes import DeviceEye
from bedside.demo.sparks import columns
from bedside.proto.v1.operator_pb2 import Participant, RoundDetail

PHASES: Final = ("opening", "collecting", "sealed", "voted", "answered", "opened")
_SPARK_CHARS: Final = 14
_HISTOGRAM_ROWS: Final = 5
_HISTOGRAM_CHARS: Final = 32
_STALE_S: Final = 5.0
"""Seconds without a prediction after which a device is shown as silent."""


def draw(board: Board, elapsed_s: float, now_s: float) -> RenderableType:
    """Return the whole screen.

    Args:
        board: what to show.
        elapsed_s: seconds since the demo began.
        now_s: monotonic time, to tell how old predictions are.
    """
    hospitals = Table.grid(expand=True, padding=(0, 1))
    for _ in board.cast.hospitals:
        hospitals.add_column(ratio=1)
    hospitals.add_row(*(_hospital(board, one, now_s) for one in board.cast.hospitals))
    below = Table.grid(expand=True, padding=(0, 1))
    below.add_column(ratio=1)
    below.add_column(ratio=2)
    below.add_row(_round(board), _coordinator(board))
    return Group(_heading(board, elapsed_s), hospitals, below, _sentences(board))


def _heading(board: Board, elapsed_s: float) -> Text:
    opened = len(board.accuracies)
    text = Text.assemble(("Bedside", "bold cyan"), f"  {opened} of {board.rounds_wanted} rounds  {elapsed_s:.0f} s")
    if board.accuracies:
        newest = board.accuracies[max(board.accuracies)]
        text.append(f"  accuracy on people who never trained {newest:.3f}", style="bold")
    return text


def _hospital(board: Board, hospital: HospitalCast, now_s: float) -> Panel:
    rows = Table.grid(expand=True, padding=(0, 1))
    rows.add_column(no_wrap=True, min_width=9)
    rows.add_column(no_wrap=True, min_width=_SPARK_CHARS)
    rows.add_column(no_wrap=True)
    states = {one.label: one for one in _devices(board.detail)}
    for device in hospital.devices:
        eye = board.eyes.get(device.name)
        state = states.get(device.name)
        words = "infers" if not device.trains else state.state if state else ""
        rows.add_row(Text(device.name), _seen(eye, now_s), Text(words, style="dim"))
        if eye is not None:
            rows.add_row(Text(""), Text(sparkline(eye.signal, _SPARK_CHARS), style="cyan"), _hit_rate(eye))
    policy = Text(board.rules.get(hospital.site, ""), style="dim")
    return Panel(
        Group(rows, Text.assemble(("policy  ", "bold"), policy), _trustee(board, hospital)), title=hospital.site
    )


def _seen(eye: DeviceEye | None, now_s: float) -> Text:
    if eye is None or eye.last is None:
        return Text("starting", style="dim")
    if now_s - eye.seen_s > _STALE_S:
        return Text("silent", style="yellow")
    right = eye.truth == eye.last.label
    style = "green" if right else "red" if eye.truth else "dim"
    return Text(f"{eye.last.label:<4} / {eye.truth or '?':<4}", style=style)


def _hit_rate(eye: DeviceEye) -> Text:
    accuracy = eye.accuracy()
    return Text("" if accuracy is None else f"{accuracy:.0%} right", style="dim")


def _trustee(board: Board, hospital: HospitalCast) -> Text:
    found = [one for one in _trustees(board.detail) if one.site == hospital.site]
    state = found[0].state or "waiting" if found else "waiting"
    text = Text.assemble(("trustee ", "bold"), state)
    if found and found[0].sentence:
        text.append(f": {found[0].sentence}", style="yellow")
    return text


def _round(board: Board) -> Panel:
    if board.detail is None:
        return Panel(Text("no round yet", style="dim"), title="the round")
    summary = board.detail.summary
    reached = PHASES.index(summary.phase) if summary.phase in PHASES else -1
    seconds = {one.phase: one.elapsed_ms / 1000 for one in board.detail.phases}
    lines = []
    for index, phase in enumerate(PHASES):
        mark, style = ("●", "green") if index < reached else ("◉", "bold cyan") if index == reached else ("○", "dim")
        time = f"{seconds[phase]:.1f} s" if phase in seconds else ""
        lines.append(Text(f"{mark} {phase:<11} {time}", style=style))
    if summary.reason:
        lines.append(Text(summary.reason, style="yellow"))
    return Panel(Group(*lines), title=f"round {summary.round_number}")


def _coordinator(board: Board) -> Panel:
    title = "what the coordinator sees"
    if board.view is None:
        return Panel(Text("nothing yet", style="dim"), title=title)
    view = board.view
    flat = _histogram(view.upload, f"one stored upload ({view.upload_z:+.1f} sigma from uniform)", "white")
    bell = _histogram(view.opened, f"the opened sum of {view.contributors} devices", "cyan")
    return Panel(Columns([flat, bell], padding=(0, 3)), title=f"{title} (round {view.round_number})")


def _histogram(counts: Sequence[int], caption: str, style: str) -> Group:
    rows = [Text(row, style=style) for row in columns(counts, _HISTOGRAM_CHARS, _HISTOGRAM_ROWS)]
    return Group(*rows, Text(caption, style="dim"))


def _sentences(board: Board) -> Group:
    return Group(*(Text(f"· {sentence}") for sentence in board.sentences))


def _devices(detail: RoundDetail | None) -> list[Participant]:
    return [one for cohort in detail.cohorts for one in cohort.devices] if detail is not None else []


def _trustees(detail: RoundDetail | None) -> list[Participant]:
    return [one for cohort in detail.cohorts for one in cohort.trustees] if detail is not None else []
