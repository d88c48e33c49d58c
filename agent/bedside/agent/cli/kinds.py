"""Which kinds of sources or sinks there are, and what each takes: what `kinds` of both prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedside.core.errors import ConfigError
from bedside.service.output import Table, emit

if TYPE_CHECKING:
    from bedside.agent.kinds import AnyKinds


def show_kinds(kinds: AnyKinds, kind: str, as_json: bool) -> None:
    """Print the kinds, or where one is named its options.

    Raises:
        ConfigError: there is no such kind.
    """
    import msgspec

    from bedside.agent.kinds import options_of

    if not kind:
        found = [{"kind": name, "words": _words(kinds, name)} for name in kinds.names()]
        emit(found, as_json, table=Table(("KIND", "WHAT"), [(one["kind"], one["words"]) for one in found]))
        return
    taken = kinds.find(kind).options
    needed = {field.name for field in msgspec.structs.fields(taken) if field.required}
    words = options_of(taken)
    options = [{"option": name, "words": told, "required": name in needed} for name, told in words.items()]
    rows = [(name, "yes" if name in needed else "", told) for name, told in words.items()]
    emit(options, as_json, table=Table(("OPTION", "REQUIRED", "WHAT"), rows, title=_words(kinds, kind)))


def _words(kinds: AnyKinds, kind: str) -> str:
    """What a kind is, in a line; why it cannot be loaded where that is so."""
    try:
        return (kinds.find(kind).options.__doc__ or "").strip().split("\n")[0]
    except ConfigError as error:
        return error.sentence
