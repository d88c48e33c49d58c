"""From a source's configuration to the source.

A kind is a module of this folder with a `KIND`, imported when a configuration names it; or an entry point of the group
`bedside.sources` of another package, which is a `SourceKind`.
"""

from __future__ import annotations

from typing import Final

from bedside.agent.config import SourceConfig
from bedside.agent.kinds import Kinds, named, not_made
from bedside.agent.sources.kind import AnyKind, SourceContext, SourceKind, SourceOptions
from bedside.core.errors import BedsideError, ConfigError
from bedside.core.ids import check_id
from bedside.core.samples import Source

ENTRY_POINTS: Final = "bedside.sources"

BUILT_IN: Final = {
    "ble": "bedside.agent.sources.ble.source",
    "csv": "bedside.agent.sources.csv.source",
    "edf": "bedside.agent.sources.recordings.edf",
    "iio": "bedside.agent.sources.iio.source",
    "ivy450c": "bedside.agent.sources.ivy450c",
    "mllp": "bedside.agent.sources.mllp.options",
    "mqtt": "bedside.agent.sources.mqtt.source",
    "replay": "bedside.agent.sources.recordings.replay",
    "serial": "bedside.agent.sources.serial_port",
    "sql": "bedside.agent.sources.sql.source",
    "wfdb": "bedside.agent.sources.recordings.wfdb",
}
"""Modules by kind, as `agent.toml` names them."""

KINDS: Final[Kinds[AnyKind]] = Kinds("source", ENTRY_POINTS, BUILT_IN, SourceKind, "docs/sources.md")

find_kind: Final = KINDS.find


def typed_source(source: SourceConfig) -> SourceOptions:
    """Read a source's options under the rules of its kind.

    Raises:
        ConfigError: `source-config`, naming the source; the remedy lists the options.
    """
    options = KINDS.typed(source, SourceOptions)
    for stream in options.streams():
        check_id(stream, "stream")
    return options


def build_source(kind: str, options: SourceOptions, context: SourceContext) -> Source:
    """Make the source that `options` describe; it opens no connection.

    Raises:
        ConfigError: from the kind, see its `build`; `source-config` where that fails otherwise.
        MalformedError: a file that the options name is not what it should be.
    """
    try:
        return find_kind(kind).build(options, context)
    except ConfigError as error:
        raise named(error, f"source {options.name}") from error
    except BedsideError:
        raise
    except Exception as error:
        raise not_made(error, f"source {options.name}", kind) from error
