"""A source's status in words, and for programs."""

from __future__ import annotations

from bedside.proto.v1.local_pb2 import SourceStatus
from bedside.service.output import human_duration

_STATES = {"waiting": "failed, starts again"}
_MS_PER_S = 1_000
_DAY_S = 86_400


def state_words(source: SourceStatus) -> str:
    """What a source is doing, in a word or two."""
    if source.state == "running" and source.HasField("connected"):
        return "connected" if source.connected else "not connected"
    return _STATES.get(source.state, source.state)


def clock_words(source: SourceStatus) -> str:
    """How far the sender's clock is ahead."""
    if not source.HasField("clock_offset_ms"):
        return "-"
    offset_s = source.clock_offset_ms / _MS_PER_S
    if abs(offset_s) < _DAY_S:
        return f"{offset_s:+.1f} s"
    return f"{human_duration(abs(offset_s))} {'ahead' if offset_s > 0 else 'behind'}"


def source_fields(source: SourceStatus) -> dict[str, object]:
    """A source for programs."""
    return {
        "source": source.name,
        "kind": source.kind,
        "state": source.state,
        "connected": source.connected if source.HasField("connected") else None,
        "detail": source.detail,
        "last_seen_age_ms": source.last_seen_age_ms if source.HasField("last_seen_age_ms") else None,
        "blocks": source.blocks,
        "samples": source.samples,
        "records": source.records,
        "marks": source.marks,
        "unmapped": source.unmapped,
        "dropped": source.dropped,
        "duplicates": source.duplicates,
        "clock_offset_ms": source.clock_offset_ms if source.HasField("clock_offset_ms") else None,
        "errors": source.errors,
        "last_error": source.last_error,
        "last_error_age_ms": source.last_error_age_ms if source.HasField("last_error_age_ms") else None,
    }
