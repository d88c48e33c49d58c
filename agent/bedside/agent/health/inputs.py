"""How the sources do: one row of facts each, and what the component `ingest` says of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bedside.agent.health.facts import SourceFacts
from bedside.agent.sources.supervisor import SourceHealth, SourceState
from bedside.service.health import Level

SILENT_S: Final = 10.0
"""Seconds without an event after which a running source counts as silent; also the patience after a start."""
SILENT_PEER_S: Final = 900.0
"""The same for a source that says that its peer is there: a ward's monitors may report every ten minutes."""

_SENTENCES: Final = 4
"""Of one component at once."""


@dataclass(frozen=True, slots=True)
class SourceSetup:
    """What `agent.toml` says of a source.

    Attributes:
        kind: of source.
        streams: that it may deliver.
    """

    kind: str
    streams: Sequence[str]


def source_facts(sources: Iterable[SourceHealth], setups: Mapping[str, SourceSetup], now_s: float) -> list[SourceFacts]:
    """The facts of every source at monotonic time `now_s`."""
    return [_facts_of(source, setups.get(source.name, SourceSetup("", ())), now_s) for source in sources]


def judge(sources: Sequence[SourceFacts], running_s: float) -> tuple[Level, str]:
    """The state of `ingest` of an agent that runs for so long.

    It has failed when no source delivers because of failures, and is degraded when one of several does. One that
    listens, and to which nobody has come yet, is well: it is there for a sender that may be connected next week.
    """
    failing = [source for source in sources if source.state == SourceState.WAITING.value]
    ended = [source.name for source in sources if source.state == SourceState.ENDED.value]
    over = [f"the recording of source {name} has ended" for name in ended]
    if failing:
        level = Level.FAILED if len(failing) + len(over) == len(sources) else Level.DEGRADED
        return level, few([f"source {source.name} fails: {source.last_error}" for source in failing])
    running = [source for source in sources if source.state == SourceState.RUNNING.value]
    alone = [one for one in running if one.listens and one.last_seen_age_ms is None and not one.connected]
    away = [source for source in running if source.connected is False and source not in alone]
    patient = [*away, *alone]
    silent = [source.name for source in running if source not in patient and _is_silent(source, running_s)]
    if running_s > SILENT_S and (away or silent):
        told = [f"source {source.name} is not connected{_detail(source)}" for source in away]
        return Level.DEGRADED, few(told + ([f"no samples from {', '.join(silent)}"] if silent else []))
    if not sources:
        return Level.DEGRADED, "no source is configured"
    if len(over) == len(sources):
        return Level.DEGRADED, few(over)
    waits = [f"source {source.name} waits for its first sender" for source in alone]
    arrive = ["samples arrive"] if len(alone) + len(over) < len(sources) else []
    return Level.OK, few([*arrive, *over, *waits])


def few(sentences: Sequence[str]) -> str:
    """The first sentences of one component."""
    more = f"; and {len(sentences) - _SENTENCES} more" if len(sentences) > _SENTENCES else ""
    return "; ".join(sentences[:_SENTENCES]) + more


def _is_silent(source: SourceFacts, running_s: float) -> bool:
    age_s = running_s if source.last_seen_age_ms is None else source.last_seen_age_ms / 1000
    return age_s > (SILENT_S if source.connected is None else SILENT_PEER_S)


def _detail(source: SourceFacts) -> str:
    return f": {source.detail}" if source.detail else ""


def _ms(age_s: float) -> int:
    return max(0, round(age_s * 1000))


def _facts_of(source: SourceHealth, setup: SourceSetup, now_s: float) -> SourceFacts:
    gauge = source.gauge
    offset_s = gauge.clock_offset_s
    return SourceFacts(
        name=source.name,
        kind=setup.kind,
        state=source.state.value,
        streams=setup.streams,
        connected=gauge.connected,
        detail=gauge.detail,
        last_seen_age_ms=_ms(now_s - source.last_seen_monotonic_s) if source.last_seen_ns else None,
        blocks=source.blocks,
        samples=source.samples,
        records=source.records,
        values=source.values,
        marks=source.marks,
        unmapped=source.unmapped,
        dropped=gauge.dropped,
        duplicates=gauge.duplicates,
        errors=source.errors,
        last_error=source.last_error,
        last_error_age_ms=_ms(now_s - source.last_error_monotonic_s) if source.last_error else None,
        clock_offset_ms=round(offset_s * 1000) if offset_s is not None else None,
        listens=gauge.listens,
    )
