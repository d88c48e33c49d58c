"""What is delivered as plain fields, for JSON and tables: one place says what they are called."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from bedside.agent.sinks.outgoing import Outgoing, SentAlarm, SentPrediction
from bedside.core.samples import Quality

_NS_PER_S: Final = 1_000_000_000


def moment(time_ns: int) -> str:
    """A time as RFC 3339 has it, UTC, in milliseconds: `2026-03-01T06:00:00.250Z`."""
    seconds, rest_ns = divmod(time_ns, _NS_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"


def moment_or_none(time_ns: int) -> str | None:
    """The same; None for a time that has not come, which is 0."""
    return moment(time_ns) if time_ns else None


def fields_of(one: Outgoing) -> dict[str, object]:
    """Everything that leaves of it; a value that the device does not have is None."""
    return {
        "id": str(one.id),
        "message_id": str(one.message_id),
        "kind": one.what.removesuffix("s"),
        "number": one.number,
        "device": one.device,
        "stream": one.stream,
        "subject": one.subject,
        "time": moment(one.time_ns),
        **_body_of(one),
    }


def _body_of(one: Outgoing) -> dict[str, object]:
    body = one.body
    if isinstance(body, SentPrediction):
        decided = {} if body.is_measured else {"label": body.label, "confidence": round(body.confidence, 6)}
        return {
            **decided,
            **({"outputs": [output.fields for output in body.outputs]} if body.outputs else {}),
            "start": moment(body.start_ns),
            "end": moment(body.end_ns),
            "model": body.model,
            "model_digest": body.digest.hex(),
        }
    if isinstance(body, SentAlarm):
        return {
            "rule": body.rule,
            "priority": body.priority,
            "state": body.state,
            "value": body.value,
            "raised": moment(body.raised_ns),
            "cleared": moment_or_none(body.cleared_ns),
            "acknowledged": moment_or_none(body.acknowledged_ns),
            "acknowledged_by": body.acknowledged_by,
            "escalated": moment_or_none(body.escalated_ns),
        }
    return {
        "values": {name: None if math.isnan(value) else value for name, value in body.values.items()},
        "units": dict(body.units),
        "quality": quality_words(body.quality),
    }


def quality_words(quality: Quality) -> list[str]:
    """The flags that are set, in words; none for good."""
    return [str(flag.name).lower().replace("_", "-") for flag in quality]
