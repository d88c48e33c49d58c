"""The status as Prometheus reads it: names of parts, sources, sinks and models, and numbers. No stream is named.

prometheus-client is not on a device; the few lines that its text format takes are written here.

Source: Prometheus, exposition formats, text 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from bedside.proto.v1.device_pb2 import ComponentState
from bedside.proto.v1.local_pb2 import AgentStatus, ModelStatus, SinkStatus, SourceStatus

PREFIX: Final = "bedside_agent_"
_MS_PER_S: Final = 1_000
_US_PER_S: Final = 1_000_000
_LEVELS: Final = {ComponentState.COMPONENT_STATE_OK: 0, ComponentState.COMPONENT_STATE_DEGRADED: 1}
_FAILED: Final = 2
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Labels = Mapping[str, str]


class Family(NamedTuple):
    """One metric: its name without prefix, what it means, and its samples. A name with `_total` is a counter."""

    name: str
    words: str
    samples: Sequence[tuple[Labels, float]]


def exposition(status: AgentStatus) -> bytes:
    """The page of a status."""
    return "".join(_text(family) for family in families(status) if family.samples).encode()


def families(status: AgentStatus) -> Iterator[Family]:
    """Every metric, also those of which there is no sample now."""
    yield _one("info", "What runs here, and whose it is.", 1, version=status.version, site=status.site)
    yield _one("uptime_seconds", "Since the process started.", status.uptime_s)
    yield _one("resident_memory_bytes", "Memory of the process.", status.rss_bytes)
    levels = [({"component": one.component}, _LEVELS.get(one.state, _FAILED)) for one in status.components]
    yield Family("component_level", "0 ok, 1 degraded, 2 failed.", [(labels, float(level)) for labels, level in levels])
    yield _one("predictions_total", "Since the state directory was made.", status.predictions)
    age_ms = status.last_prediction_age_ms if status.HasField("last_prediction_age_ms") else None
    yield Family("last_prediction_age_seconds", "Since the newest one.", _age({}, age_ms))
    yield _one("alarms_open", "Alarms that are not both cleared and acknowledged.", status.open_alarms)
    yield _one("alarms_raised", "Alarms that have not cleared.", status.raised_alarms)
    yield from _buffer(status)
    yield from _sources(status.sources)
    yield from _sinks(status.sinks)
    yield from _models(status.models)


def _buffer(status: AgentStatus) -> Iterator[Family]:
    buffer = status.buffer
    yield _one("buffer_bytes", "Signal that is kept.", buffer.bytes)
    yield _one("buffer_limit_bytes", "Beyond it, the oldest goes.", buffer.cap_bytes)
    yield _one("buffer_oldest_age_seconds", "Age of the oldest sample.", buffer.oldest_age_s)
    yield _one("buffer_evicted_parts_total", "Parts that went for want of room.", buffer.evicted_parts)
    yield _one("buffer_dropped_parts_total", "Parts that could not be kept.", buffer.dropped_parts)
    yield _one("written_bytes_total", "What the process has sent to its disks.", buffer.written_bytes)


_OF_SOURCE: Final = {
    "samples": "Samples of signal.",
    "records": "Records of values.",
    "dropped": "Blocks that were let go.",
    "duplicates": "What had come before.",
    "errors": "Failures.",
}
_OF_SINK: Final = {
    "sent": "Deliveries.",
    "skipped": "Items let go beyond the cap of the queue.",
    "refused": "Items that the receiver would not take.",
    "errors": "Failures.",
}
_OF_MODEL: Final = {
    "predictions": "Decisions since the process started.",
    "dropped_windows": "Windows that left the queue undecided.",
}


def _sources(sources: Iterable[SourceStatus]) -> Iterator[Family]:
    named = [({"source": one.name, "kind": one.kind}, one) for one in sources]
    for field, words in _OF_SOURCE.items():
        yield Family(f"source_{field}_total", words, [(labels, getattr(one, field)) for labels, one in named])
    yield Family("source_running", "Whether it works.", [(labels, one.state == "running") for labels, one in named])
    yield Family("source_quarantined", "Readings in the quarantine.", [(labels, one.unmapped) for labels, one in named])
    ages = [_age(labels, one.last_seen_age_ms) for labels, one in named if one.HasField("last_seen_age_ms")]
    yield Family(
        "source_last_seen_age_seconds", "Since the newest reading.", [sample for age in ages for sample in age]
    )


def _sinks(sinks: Iterable[SinkStatus]) -> Iterator[Family]:
    named = [({"sink": one.name, "kind": one.kind}, one) for one in sinks]
    for field, words in _OF_SINK.items():
        yield Family(f"sink_{field}_total", words, [(labels, getattr(one, field)) for labels, one in named])
    yield Family("sink_waiting", "Items in the queue.", [(labels, one.waiting) for labels, one in named])


def _models(models: Iterable[ModelStatus]) -> Iterator[Family]:
    named = [({"model": one.name}, one) for one in models]
    for field, words in _OF_MODEL.items():
        yield Family(f"model_{field}_total", words, [(labels, getattr(one, field)) for labels, one in named])
    yield Family("model_serving", "Whether it decides.", [(labels, not one.error) for labels, one in named])
    stages = [({**labels, "stage": stage.stage}, stage) for labels, one in named for stage in one.stages]
    latency = [({**labels, "quantile": "0.5"}, stage.p50_us / _US_PER_S) for labels, stage in stages]
    latency += [({**labels, "quantile": "0.99"}, stage.p99_us / _US_PER_S) for labels, stage in stages]
    yield Family("model_latency_seconds", "From a sample to its decision, by stage.", latency)


def _one(name: str, words: str, value: float, **labels: str) -> Family:
    return Family(name, words, [(labels, value)])


def _age(labels: Labels, age_ms: int | None) -> list[tuple[Labels, float]]:
    return [] if age_ms is None else [(labels, age_ms / _MS_PER_S)]


def _text(family: Family) -> str:
    name = PREFIX + family.name
    kind = "counter" if name.endswith("_total") else "gauge"
    head = f"# HELP {name} {family.words}\n# TYPE {name} {kind}\n"
    return head + "".join(f"{name}{_labels(labels)} {float(value)!r}\n" for labels, value in family.samples)


def _labels(labels: Labels) -> str:
    inside = ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items())
    return f"{{{inside}}}" if inside else ""
