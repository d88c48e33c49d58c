"""From a sink's configuration to the sink.

A kind is a module of this folder with a `KIND`, imported when a configuration names it; or an entry point of the group
`bedside.sinks` of another package, which is a `SinkKind`.
"""

from __future__ import annotations

from typing import Final

from bedside.agent.config import SinkConfig
from bedside.agent.kinds import Kinds, named, not_made
from bedside.agent.sinks.kind import AnyKind, Sink, SinkContext, SinkKind, SinkOptions
from bedside.agent.sinks.rules import check_options
from bedside.core.errors import BedsideError, ConfigError

ENTRY_POINTS: Final = "bedside.sinks"

BUILT_IN: Final = {
    "csv": "bedside.agent.sinks.csv_file",
    "fhir": "bedside.agent.sinks.http.fhir",
    "hl7": "bedside.agent.sinks.hl7.sink",
    "mqtt": "bedside.agent.sinks.mqtt",
    "webhook": "bedside.agent.sinks.http.webhook",
}
"""Modules by kind, as `agent.toml` names them."""

KINDS: Final[Kinds[AnyKind]] = Kinds("sink", ENTRY_POINTS, BUILT_IN, SinkKind, "docs/sinks.md")

find_kind: Final = KINDS.find


def typed_sink(sink: SinkConfig) -> SinkOptions:
    """Read a sink's options under the rules of its kind.

    Raises:
        ConfigError: `sink-config`, naming the sink; the remedy lists the options.
        MalformedError: `bad-id` for a stream that is none.
    """
    options = KINDS.typed(sink, SinkOptions)
    check_options(options, find_kind(sink.kind).sorts)
    return options


def build_sink(kind: str, options: SinkOptions, context: SinkContext) -> Sink:
    """Make the sink that `options` describe; it opens no connection.

    Raises:
        ConfigError: from the kind, see its `build`; `sink-config` where that fails otherwise.
    """
    try:
        return find_kind(kind).build(options, context)
    except ConfigError as error:
        raise named(error, f"sink {options.name}") from error
    except BedsideError:
        raise
    except Exception as error:
        raise not_made(error, f"sink {options.name}", kind) from error
