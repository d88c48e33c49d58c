"""From a source's configuration to the source.

A kind is a module of this folder with a `KIND`, imported when a configuration names it; or an entry point of the group
`bedside.sources` of another package, which is a `SourceKind`.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Final, get_args, get_origin, get_type_hints

import msgspec

from bedside.agent.config import SourceConfig
from bedside.agent.sources.kind import AnyKind, SourceContext, SourceKind, SourceOptions
from bedside.core.errors import ConfigError
from bedside.core.ids import check_id
from bedside.core.samples import Source
from bedside.service.text import bounded

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS: Final = "bedside.sources"

BUILT_IN: Final = {
    "replay": "bedside.agent.sources.replay",
    "serial": "bedside.agent.sources.serial_port",
}
"""Modules by kind, as `agent.toml` names them."""


def kinds() -> list[str]:
    """Every kind that this installation has, those of other packages last."""
    return [*BUILT_IN, *(name for name in _entry_points() if name not in BUILT_IN)]


def find_kind(name: str) -> AnyKind:
    """The kind of a name.

    Raises:
        ConfigError: `source-kind`: there is none, or the package that brings it cannot be loaded.
    """
    if name in BUILT_IN:
        kind: AnyKind = import_module(BUILT_IN[name]).KIND
        return kind
    points = _entry_points()
    if name not in points:
        near = difflib.get_close_matches(name, kinds(), n=1, cutoff=0.5)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            "source-kind",
            f"there is no kind {bounded(name, 40)!r}",
            remedy=f"{guess}the kinds are {', '.join(kinds())}",
        )
    try:
        found = points[name].load()
    except Exception as error:
        raise ConfigError(
            "source-kind",
            f"kind {name} cannot be loaded from {points[name].value}: {type(error).__name__}: {error}",
            remedy="repair or remove the package that brings it",
        ) from error
    if not isinstance(found, SourceKind):
        raise ConfigError(
            "source-kind",
            f"kind {name}: {points[name].value} is no SourceKind",
            remedy="see the tutorial in docs/sources.md",
        )
    return found


def typed_source(source: SourceConfig) -> SourceOptions:
    """Read a source's options under the rules of its kind.

    Raises:
        ConfigError: `source-config`, naming the source; the remedy lists the options.
    """
    try:
        kind = find_kind(source.kind).options
    except ConfigError as error:
        raise ConfigError("source-config", f"source {source.name}: {error.sentence}", remedy=error.remedy) from error
    known = options_of(kind)
    remedy = f"{bounded(source.kind, 40)} takes " + "; ".join(f"{name}: {words}" for name, words in known.items())
    for strange in (name for name in source.options if name not in known):
        near = difflib.get_close_matches(strange, known, n=1, cutoff=0.5)
        raise ConfigError(
            "source-config",
            f"source {source.name}: there is no option {bounded(strange, 40)!r}",
            remedy=f"did you mean {near[0]!r}? {remedy}" if near else remedy,
        )
    try:
        options: SourceOptions = msgspec.convert({"name": source.name, **source.options}, type=kind)
    except msgspec.ValidationError as error:
        raise ConfigError("source-config", f"source {source.name}: {error}", remedy=remedy) from error
    for stream in options.streams():
        check_id(stream, "stream")
    return options


def options_of(kind: type[SourceOptions]) -> dict[str, str]:
    """What a kind of source takes in `[sources.options]`: each option in a few words."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: get_args(hint)[1].description for name, hint in hints.items() if get_origin(hint) is Annotated}


def build_source(kind: str, options: SourceOptions, context: SourceContext) -> Source:
    """Make the source that `options` describe; it opens no connection.

    Raises:
        ConfigError: from the kind; see its `build`.
        MalformedError: a file that the options name is not what it should be.
    """
    return find_kind(kind).build(options, context)


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # 3 MB that a device with known kinds does not need

    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
