"""A sink's status in words, and for programs."""

from __future__ import annotations

from bedside.proto.v1.local_pb2 import SinkStatus


def sink_words(sink: SinkStatus) -> str:
    """What a sink is doing, and what is wrong with that."""
    state = "failed, tries again" if sink.state == "waiting" else sink.state
    counts = (("wait", sink.waiting), ("skipped", sink.skipped), ("refused", sink.refused))
    return ", ".join([state, *(f"{count} {what}" for what, count in counts if count)])


def needs_help(sink: SinkStatus) -> bool:
    """Whether somebody should look at it."""
    return bool(sink.state == "waiting" or sink.skipped or sink.refused)


def sink_fields(sink: SinkStatus) -> dict[str, object]:
    """A sink for programs."""
    return {
        "name": sink.name,
        "kind": sink.kind,
        "mode": sink.mode,
        "state": sink.state,
        "sent": sink.sent,
        "waiting": sink.waiting,
        "skipped": sink.skipped,
        "refused": sink.refused,
        "errors": sink.errors,
        "last_error": sink.last_error,
        "last_error_age_ms": sink.last_error_age_ms if sink.HasField("last_error_age_ms") else None,
        "last_sent_age_ms": sink.last_sent_age_ms if sink.HasField("last_sent_age_ms") else None,
    }
