"""`bedside agent top` on a terminal, best from 80 columns on: streams, models, buffer, predictions, open alarms."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from rich.box import ROUNDED
from rich.console import Group, JustifyMethod, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bedside.agent.cli.glance import MAX_STREAMS_SHOWN, Glance
from bedside.agent.cli.looking import prospect_words, quality_words
from bedside.agent.cli.sink_words import needs_help, sink_words
from bedside.agent.cli.source_words import state_words
from bedside.agent.cli.sparks import Bar, Spark
from bedside.agent.inference.latency import STAGES
from bedside.agent.training.gates import WAITING
from bedside.proto.v1.device_pb2 import ComponentState
from bedside.proto.v1.local_pb2 import AgentStatus, BufferStatus, ModelStatus, StreamStatus
from bedside.service.output import human_bytes, human_duration
from bedside.service.text import bounded

_DOTS: Final = {
    ComponentState.COMPONENT_STATE_OK: ("●", "green"),
    ComponentState.COMPONENT_STATE_DEGRADED: ("◐", "yellow"),
    ComponentState.COMPONENT_STATE_FAILED: ("○", "bold red"),
}
_PRIORITY_STYLES: Final = {"high": "bold red", "medium": "yellow", "low": "cyan"}
_WIDE: Final = 80
"""Columns from which on everything has room."""
_PAPER_ROWS: Final = 30
_NARROW_STAGES: Final = ("infer", "decide")
_LEAST_ROWS: Final = 3

_MAX_TROUBLES: Final = 4
_BAR_CHARS: Final = 8
_NS_PER_MS: Final = 1_000_000
_SILENT_MS: Final = 5_000
_OLD_MS: Final = 60_000
"""Age from which a prediction tells of then and not of now."""
_FIXED_ROWS: Final = 15
"""Rows of headings and borders, and the last one, which stays free."""


def draw(glance: Glance, height: int | None = None, width: int = _WIDE) -> RenderableType:
    """Return the whole screen, for a terminal of that size, or for paper of any height.

    The lists at its end are as long as there is room for; where there is none they stand at the beginning.
    """
    narrow = width < _WIDE
    parts: list[RenderableType] = [_heading(glance, narrow)]
    low, height = height is not None, _PAPER_ROWS if height is None else height
    if glance.status is not None:
        status = glance.status
        parts += [_components(status), _streams(status, glance, narrow), _models(status, glance, narrow)]
        parts.append(_buffer(status.buffer, glance.written_bytes_per_s))
        unwell = sum(
            one.state != ComponentState.COMPONENT_STATE_OK or one.sentence.startswith(WAITING)
            for one in status.components
        )
        faults = sum(bool(model.error or prospect_words(model)) for model in status.models) + len(_troubles(status))
        height -= narrow + unwell + min(MAX_STREAMS_SHOWN, len(status.streams)) + len(status.models) + faults
    longest = max(1, len(glance.stored.predictions), len(glance.stored.alarms))
    low = low and height - _FIXED_ROWS < _LEAST_ROWS
    rows = min(longest, max(_LEAST_ROWS, height - _FIXED_ROWS))
    below = Table.grid(expand=True)
    below.add_column(ratio=1)
    below.add_column(ratio=1)
    below.add_row(_predictions(glance, rows), _alarms(glance, rows))
    return Group(*parts[:1], below, *parts[1:]) if low else Group(*parts, below)


def _heading(glance: Glance, narrow: bool) -> RenderableType:
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True)
    line.add_column(no_wrap=True, justify="right")
    clock = datetime.fromtimestamp(glance.now_ns / 1e9, UTC).astimezone().strftime("%H:%M:%S")
    status = glance.status
    if status is None:
        line.add_row(Text.assemble(("Bedside", "bold cyan"), (f"  {bounded(glance.trouble)}", "bold red")), clock)
        return line
    who = Text.assemble(
        ("Bedside ", "bold cyan"), status.device, ("  at ", "dim"), status.site or Text("no site yet", "dim")
    )
    facts = Text.assemble(
        ("up ", "dim"), human_duration(status.uptime_s), "  ", human_bytes(status.rss_bytes), "  ", (clock, "bold")
    )
    if narrow:
        return Group(who, facts)
    line.add_row(who, facts)
    return line


def _components(status: AgentStatus) -> RenderableType:
    line = Text()
    unwell = []
    for component in status.components:
        dot, style = _DOTS.get(component.state, ("?", "dim"))
        line.append(f"{dot} ", style)
        line.append(f"{component.component}  ", "default" if style == "green" else style)
        if style != "green" or component.sentence.startswith(WAITING):
            said_style = "dim" if style == "green" else style
            said = Text(f"  {component.component}: {bounded(component.sentence)}", said_style, overflow="ellipsis")
            unwell.append(said)
    for sentence in unwell:
        sentence.no_wrap = True
    return Group(line, *unwell)


def _streams(status: AgentStatus, glance: Glance, narrow: bool) -> Panel:
    shares = (2, 1, 1) if narrow else (1, 3, 1)
    columns = (("stream", shares[0]), ("rate", 0), ("seen", 0), ("signal", shares[1]), ("quality", shares[2]))
    table = _table(*columns, right=("rate", "seen"))
    for stream in status.streams[:MAX_STREAMS_SHOWN]:
        silent = stream.last_seen_age_ms > _SILENT_MS
        quality = quality_words(stream.quality)
        wave = glance.stored.waves.get(stream.stream)
        table.add_row(
            Text(stream.stream),
            Text(_rate(stream)),
            Text(_age(stream.last_seen_age_ms), "yellow" if silent else "dim"),
            Spark(wave, "dim" if silent else "cyan") if wave is not None else Text(_counts(stream), "dim"),
            Text(quality, "green" if quality == "good" else "yellow"),
        )
    more = len(status.streams) - MAX_STREAMS_SHOWN
    note = f"and {more} more: bedside agent streams" if more > 0 else ""
    body = table if status.streams else Text("nothing has arrived yet", "dim")
    return _panel("streams", Group(body, *_troubles(status)), note)


def _troubles(status: AgentStatus) -> list[Text]:
    """A line for each source of which something is missing, and for each sink that somebody should look at."""
    lines = []
    for source in status.sources:
        words = [state_words(source)] if source.state == "waiting" or state_words(source) == "not connected" else []
        counts = (("not understood", source.unmapped), ("dropped", source.dropped), ("failures", source.errors))
        words += [f"{count} {what}" for what, count in counts if count]
        if words:
            lines.append(Text(f"{source.name}: {', '.join(words)}", "yellow", no_wrap=True, overflow="ellipsis"))
    lines += [
        Text(f"sink {sink.name}: {sink_words(sink)}", "yellow", no_wrap=True, overflow="ellipsis")
        for sink in filter(needs_help, status.sinks)
    ]
    return lines[:_MAX_TROUBLES]


def _models(status: AgentStatus, glance: Glance, narrow: bool) -> Panel:
    if not status.models:
        return _panel("models", Text("none serves yet: name one in agent.toml, or wait for the first plan", "dim"))
    stages = _NARROW_STAGES if narrow else STAGES
    right = ("per s", "drop", *stages)
    table = _table(("model", 1), ("on", 0), ("per s", 0), *((stage, 0) for stage in stages), ("drop", 0), right=right)
    faults = []
    for model in status.models:
        rate = glance.predictions_per_s.get(model.name)
        table.add_row(
            Text(model.name),
            Text(model.runtime or "-", "dim"),
            Text("-" if rate is None else f"{rate:.3g}"),
            *(_stage(model, stage) for stage in stages),
            Text(str(model.dropped_windows), "yellow" if model.dropped_windows else "dim"),
        )
        if model.error:
            faults.append(Text(f"{model.name}: {bounded(model.error)}", "red", no_wrap=True, overflow="ellipsis"))
        elif words := prospect_words(model):
            told = f"{model.name} {model.digest.hex()[:8]} {bounded(words)}"
            faults.append(Text(told, "yellow" if model.concern else "dim", no_wrap=True, overflow="ellipsis"))
    note = "p50/p99 in ms" if narrow else "p50/p99 in ms: window cut, waited, inferred; arrival to decision"
    return _panel("models", Group(table, *faults), note)


def _buffer(buffer: BufferStatus, written_bytes_per_s: float | None) -> Panel:
    share = buffer.bytes / buffer.cap_bytes if buffer.cap_bytes else 0.0
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(
        Bar(share, "cyan" if share < 0.97 else "blue"),  # a full buffer is its normal state: the oldest goes
        Text.assemble(
            (human_bytes(buffer.bytes), "bold"), (f" of {human_bytes(buffer.cap_bytes)} ", "dim"), f"{share:.0%}"
        ),
    )
    words = Text.assemble(
        ("oldest ", "dim"),
        human_duration(buffer.oldest_age_s) if buffer.oldest_age_s else "-",
        ("   written ", "dim"),
        "-" if written_bytes_per_s is None else f"{human_bytes(written_bytes_per_s)}/s",
        ("   made room ", "dim"),
        f"{buffer.evicted_parts}",
        ("   lost ", "dim"),
        (f"{buffer.dropped_parts}", "bold red" if buffer.dropped_parts else "default"),
    )
    return _panel("buffer", Group(line, words))


def _predictions(glance: Glance, rows: int) -> Panel:
    if not glance.stored.predictions:
        return _panel("predictions", Text("none yet", "dim"), rows=rows)
    table = Table.grid(expand=True, padding=(0, 1))
    for ratio in (3, 2):
        table.add_column(ratio=ratio, no_wrap=True, overflow="ellipsis")
    table.add_column(no_wrap=True)
    table.add_column(width=_BAR_CHARS)
    table.add_column(no_wrap=True, justify="right")
    for one in glance.stored.predictions[:rows]:
        age_ms = max(0, glance.now_ns - one.end_ns) // _NS_PER_MS
        style = "green" if one.confidence >= 0.9 else "default" if one.confidence >= 0.6 else "dim"
        if age_ms > _OLD_MS:
            style = "dim"
        table.add_row(
            Text(one.stream, "dim"), Text(bounded(one.words), style), Text(one.sureness, style),
            Bar(0 if one.is_measured else one.confidence, style if style != "default" else "white"),
            Text(_age(age_ms), "dim"),
        )  # fmt: skip
    return _panel("predictions", table, rows=rows)


def _alarms(glance: Glance, rows: int) -> Panel:
    if not glance.stored.alarms:
        return _panel("alarms", Text("none is open", "green"), rows=rows)
    table = Table.grid(expand=True, padding=(0, 1))
    for ratio in (None, 1, 1, None):
        table.add_column(ratio=ratio, no_wrap=True, overflow="ellipsis")
    for one in glance.stored.alarms[:rows]:
        style = _PRIORITY_STYLES[one.priority] if not one.acknowledged_ns else "dim"
        state = "seen" if one.acknowledged_ns else "louder" if one.escalated_ns else "cleared" if one.cleared_ns else ""
        table.add_row(
            Text("▲" if one.priority == "high" else "△", style), Text(bounded(one.rule), style),
            Text(one.stream, "dim"), Text(state or _age((glance.now_ns - one.raised_ns) // _NS_PER_MS), style),
        )  # fmt: skip
    more = len(glance.stored.alarms) - rows
    return _panel("alarms", table, f"and {more} more: bedside agent alarms" if more > 0 else "", rows)


def _table(*columns: tuple[str, int], right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    for name, ratio in columns:
        side: JustifyMethod = "right" if name in right else "left"
        table.add_column(name, ratio=ratio or None, no_wrap=True, overflow="ellipsis", justify=side)
    return table


def _panel(title: str, body: RenderableType, note: str = "", rows: int | None = None) -> Panel:
    return Panel(
        body,
        height=None if rows is None else rows + 2,
        title=Text(title, "bold default"),
        title_align="left",
        subtitle=Text(note, "dim default") if note else None,
        subtitle_align="right",
        border_style="grey39",
        box=ROUNDED,
        padding=(0, 1),
    )


def _rate(stream: StreamStatus) -> str:
    return f"{stream.rate_hz:.4g} Hz" if stream.rate_hz else "records"


def _counts(stream: StreamStatus) -> str:
    count, what = (stream.records, "record") if stream.records else (stream.blocks, "block")
    return f"{count} {what}" + ("" if count == 1 else "s")


def _age(milliseconds: int) -> str:
    """How long ago, in one unit."""
    if milliseconds < 1_500:
        return "now"
    return " ".join(human_duration(round(milliseconds / 1000)).split()[:2])


def _stage(model: ModelStatus, stage: str) -> Text:
    for found in model.stages:
        if found.stage == stage and found.count:
            late = stage == "decide" and found.p99_us > 10_000
            return Text(f"{_ms(found.p50_us)}/{_ms(found.p99_us)}", "yellow" if late else "default")
    return Text("-", "dim")


def _ms(microseconds: int) -> str:
    """Milliseconds in four characters at most: .05, 1.2, 35, 1200."""
    value = microseconds / 1000
    if value < 0.995:
        return f"{value:.2f}".removeprefix("0")
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
