"""What must hold of a sink's options whatever its kind."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from bedside.agent.config_bounds import MAX_WAIT_S
from bedside.agent.sinks.schedule import Schedule
from bedside.core.errors import ConfigError
from bedside.core.ids import check_id

if TYPE_CHECKING:
    from bedside.agent.sinks.kind import SinkOptions

MAX_WAITING: Final = 10_000_000
MAX_SUBJECT_CHARS: Final = 200
MAX_TIMEOUT_S: Final = 100.0
"""Of an option `timeout_s`, seconds: below the patience of the runner, which ends a sink that never returns."""


def check_options(options: SinkOptions, sorts: Collection[str]) -> None:
    """Check the options that all kinds share.

    Args:
        options: of one sink.
        sorts: what its kind can send.

    Raises:
        ConfigError: `sink-config`.
        MalformedError: `bad-id` for a stream that is none.
    """
    for stream in (*options.streams, *options.subjects):
        check_id(stream, "stream")
    narrow = options.labels or options.min_confidence or options.only_changes or "predictions" not in options.send
    scheduled = options.mode == "scheduled"
    rules = (
        (bool(options.send), "it sends nothing: `send` is empty"),
        (set(options.send) <= set(sorts), f"its kind sends {', '.join(sorted(sorts))} only"),
        ("records" not in options.send or options.streams, "records leave only of streams that `streams` names"),
        (0 <= options.min_confidence <= 1, "min_confidence must be 0 to 1"),
        (0.05 <= options.within_s <= MAX_WAIT_S, f"within_s must be 0.05 to {MAX_WAIT_S}"),
        (1 <= options.max_waiting <= MAX_WAITING, f"max_waiting must be 1 to {MAX_WAITING}"),
        (scheduled or not (options.every_s or options.at), 'every_s and at are for mode = "scheduled"'),
        (not scheduled or bool(options.every_s) != bool(options.at), "a schedule needs every_s or at, one of the two"),
        (not options.every_s or 1 <= options.every_s <= MAX_WAIT_S, f"every_s must be 1 to {MAX_WAIT_S}"),
        (
            options.mode != "event" or narrow,
            "as every prediction is an event, name labels, min_confidence or only_changes, or send alarms alone",
        ),
        (
            all(len(name) <= MAX_SUBJECT_CHARS and name.isprintable() for name in options.subjects.values()),
            f"a subject is visible text of {MAX_SUBJECT_CHARS} characters at most",
        ),
    )
    for holds, sentence in rules:
        if not holds:
            raise ConfigError("sink-config", f"sink {options.name}: {sentence}", remedy="see docs/sinks.md")
    Schedule(options.name, options.every_s, options.at, options.time_zone)
