"""Drawing a round: its phases, who took part, who refused and why, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bedside.coordinator.cli.present import combiner_name, no_step, trim_of
from bedside.proto.v1.operator_pb2 import CohortDetail, Participant, RoundDetail
from bedside.service.output import human_bytes, human_duration
from bedside.service.text import bounded

if TYPE_CHECKING:
    from rich.console import RenderableType

_MS_PER_S = 1_000
_REFUSED = ("refused", "lost", "burned", "retired", "silent")


def headline(detail: RoundDetail) -> str:
    """One line: task, round, phase, devices."""
    summary = detail.summary
    devices = f"{summary.contributors} device{'' if summary.contributors == 1 else 's'}"
    text = f"{summary.task} round {summary.round_number}: {summary.phase}, {devices}"
    return f"{text}, {summary.refusals} refused" if summary.refusals else text


def phase_line(detail: RoundDetail) -> str:
    """The phases with their times."""
    return " > ".join(f"{phase.phase} {human_duration(phase.elapsed_ms / _MS_PER_S)}" for phase in detail.phases)


def combiner_line(detail: RoundDetail) -> str:
    """How the cohorts become one step."""
    trim = trim_of(detail)
    left_out = f", {trim} left out at either end" if trim else ""
    return f"cohorts combined by: {combiner_name(detail)}{left_out}"


def count_line(detail: RoundDetail) -> str:
    """What the opened counts say; empty while there are none."""
    counts = {count.name: count.sum for count in detail.counts}
    examples = counts.get("examples", 0)
    if not examples:
        return ""
    return f"{examples} examples; the received model got {counts.get('correct', 0) / examples:.3f} of them right"


def refusal_sentences(detail: RoundDetail) -> list[str]:
    """Why somebody is missing, one sentence each; why a cohort was left out; why the model did not move."""
    sentences = []
    for cohort in detail.cohorts:
        for one in (*cohort.trustees, *cohort.devices):
            if one.state == "refused":
                sentences.append(f"{_name(one)} refused ({one.code}): {one.sentence}")
            elif one.state in ("lost", "burned", "retired"):
                sentences.append(f"{_name(one)} closed without an answer: {one.state}")
        if cohort.reason:
            sentences.append(f"cohort {cohort.index} was left out: {cohort.reason}")
    code, sentence = no_step(detail)
    if code:
        sentences.append(f"no step was taken ({code}): {sentence}")
    return [bounded(sentence) for sentence in sentences]


def plain_lines(detail: RoundDetail) -> list[str]:
    """A round without colour: for logs, pipes and screen readers."""
    lines = [headline(detail), f"  phases: {phase_line(detail)}", f"  {combiner_line(detail)}"]
    for cohort in detail.cohorts:
        lines.append(f"  cohort {cohort.index}: {cohort.phase}")
        lines += [f"    {line}" for line in _participants(cohort)]
    counts = count_line(detail)
    lines += [f"  {counts}"] if counts else []
    return lines + [f"  {sentence}" for sentence in refusal_sentences(detail)]


def news(detail: RoundDetail, before: RoundDetail | None) -> list[str]:
    """What changed since the last look, as plain lines."""
    same_round = before is not None and before.summary.plan_digest == detail.summary.plan_digest
    known = set(_happenings(before)) if same_round and before is not None else set()
    lines = [line for line in _happenings(detail) if line not in known]
    if before is None or not same_round or before.summary.phase != detail.summary.phase:
        lines.insert(0, headline(detail))
    return lines


def drawing(detail: RoundDetail) -> RenderableType:
    """A round for a terminal: one column per site."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(phase_line(detail), style="dim")]
    for cohort in detail.cohorts:
        table = Table(box=None, pad_edge=False)
        for heading in ("site", "who", "role", "state", "received"):
            table.add_column(heading, justify="right" if heading == "received" else "left")
        for one in (*cohort.trustees, *cohort.devices):
            received = human_bytes(one.received_bytes) if one.received_bytes else ""
            state = Text(one.state, style=_style(one.state))
            table.add_row(one.site, Text(bounded(one.label or one.id)), one.role, state, received)
        parts.append(table)
    parts += [Text(line) for line in (count_line(detail), *refusal_sentences(detail)) if line]
    return Panel(Group(*parts), title=bounded(headline(detail)), title_align="left")


def _happenings(detail: RoundDetail | None) -> Iterator[str]:
    if detail is None:
        return
    for cohort in detail.cohorts:
        for one in (*cohort.trustees, *cohort.devices):
            if one.state not in ("expected", "silent", "refused", "uploading"):
                yield f"  {_name(one)}: {one.state}"
    yield from (f"  {sentence}" for sentence in refusal_sentences(detail))
    counts = count_line(detail)
    if counts:
        yield f"  {counts}"


def _participants(cohort: CohortDetail) -> Iterator[str]:
    for one in (*cohort.trustees, *cohort.devices):
        received = f", {human_bytes(one.received_bytes)}" if one.received_bytes else ""
        yield f"{_name(one)}: {one.state}{received}"


def _name(one: Participant) -> str:
    if one.role == "trustee":
        return f"trustee of site {one.site}"
    return bounded(f"{one.label or one.id} of site {one.site}")


def _style(state: str) -> str:
    if state in _REFUSED:
        return "red" if state != "silent" else "dim"
    return "green" if state in ("counted", "answered", "accepted") else "yellow"
