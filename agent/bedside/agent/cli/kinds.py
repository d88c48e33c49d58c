"""Which kinds of sources or sinks there are, and what each takes: what `kinds` of both prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedside.core.errors import ConfigError
from bedside.service.output import Table, emit, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    import click
    import msgspec

    from bedside.agent.kinds import AnyKinds


def complete_kinds(registry: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What completes names of kinds: those of the module `registry`, imported when somebody asks."""

    def complete(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        from importlib import import_module

        kinds: AnyKinds = import_module(registry).KINDS
        return [name for name in kinds.names() if name.startswith(begun)]

    return complete


def show_kinds(kinds: AnyKinds, kind: str, as_json: bool) -> None:
    """Print the kinds, or where one is named its options.

    Raises:
        ConfigError: there is no such kind.
    """
    import msgspec

    from bedside.agent.kinds import forms_of, options_of

    if not kind:
        found = [{"kind": name, "words": _words(kinds, name)} for name in kinds.names()]
        emit(found, as_json, table=Table(("KIND", "WHAT"), [(one["kind"], one["words"]) for one in found]))
        return
    taken = kinds.find(kind).options
    fields = {field.name: field for field in msgspec.structs.fields(taken)}
    forms = forms_of(taken)
    options = [
        {
            "option": name,
            "words": told,
            "required": fields[name].required,
            "form": forms[name],
            "default": _default(fields[name]),
        }
        for name, told in options_of(taken).items()
    ]
    rows = [
        (
            str(one["option"]),
            str(one["form"]),
            "required" if one["required"] else to_json(one["default"]) if one["default"] is not None else "",
            str(one["words"]),
        )
        for one in options
    ]
    emit(options, as_json, table=Table(("OPTION", "FORM", "DEFAULT", "WHAT"), rows, title=_words(kinds, kind)))


def _default(field: msgspec.structs.FieldInfo) -> object:
    """What an option is where it is left out, as `agent.toml` would have it; None for nothing."""
    import msgspec

    value = field.default if field.default is not msgspec.NODEFAULT else None
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    return msgspec.to_builtins(value)


def _words(kinds: AnyKinds, kind: str) -> str:
    """What a kind is, in a line; why it cannot be loaded where that is so."""
    try:
        return (kinds.find(kind).options.__doc__ or "").strip().split("\n")[0]
    except ConfigError as error:
        return error.sentence
