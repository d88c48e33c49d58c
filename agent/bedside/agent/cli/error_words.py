"""What a source or a sink failed with last, and whether that is over."""

from __future__ import annotations

from bedside.proto.v1.local_pb2 import SinkStatus, SourceStatus
from bedside.service.output import human_duration
from bedside.service.text import bounded

_MS_PER_S = 1_000


def error_words(status: SourceStatus | SinkStatus) -> str:
    """The last failure; with its age, and `over`, once something was delivered after it. Empty where there is none."""
    if not status.last_error:
        return ""
    words = bounded(status.last_error)
    if status.state == "waiting" or not status.HasField("last_error_age_ms"):
        return words
    ago = f"{human_duration(status.last_error_age_ms / _MS_PER_S)} ago"
    name = "last_seen_age_ms" if isinstance(status, SourceStatus) else "last_sent_age_ms"
    over = status.HasField(name) and getattr(status, name) <= status.last_error_age_ms  # type: ignore[arg-type]  # of its own
    return f"{words} ({ago}, over)" if over else f"{words} ({ago})"
