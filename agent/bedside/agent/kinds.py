"""Kinds of sources and sinks by name: built in, or brought by another package through an entry point.

A built-in kind is a module with a `KIND`, imported when a configuration names it.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from bedside.agent.failure import describe
from bedside.core.errors import ConfigError
from bedside.service.installation import how_to_install
from bedside.service.text import bounded

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_OPTION: Final = re.compile(r"at `\$\.(\w+)")
_FORMS: Final[dict[type, str]] = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def option(words: str) -> msgspec.Meta:
    """Describe an option in a few words, as errors and the documentation list it; it goes into an `Annotated`."""
    return msgspec.Meta(description=words)


SecretPlace = Annotated[str, option("where it lies: credential:NAME, or a file of mode 0600")]
"""The option `password` of every kind that has one; `bedside.service.secret.read_secret` reads it."""


class Configured(Protocol):
    """A table of `agent.toml` that names a kind."""

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def options(self) -> Mapping[str, Any]: ...


class HasOptions(Protocol):
    """A `SourceKind` or a `SinkKind`."""

    @property
    def options(self) -> type[msgspec.Struct]: ...


Kind = TypeVar("Kind", bound=HasOptions)
Options = TypeVar("Options", bound=msgspec.Struct)


@dataclass(frozen=True)
class Kinds(Generic[Kind]):
    """All kinds of one sort.

    Attributes:
        noun: `source` or `sink`: of errors, and their codes.
        group: entry points of other packages.
        built_in: modules by kind, as `agent.toml` names them.
        form: what a kind must be.
        tutorial: page that shows how to write one.
    """

    noun: str
    group: str
    built_in: Mapping[str, str]
    form: type[Kind]
    tutorial: str

    def names(self) -> list[str]:
        """Every kind that this installation has, those of other packages last."""
        return [*self.built_in, *(name for name in self._entry_points() if name not in self.built_in)]

    def find(self, name: str) -> Kind:
        """The kind of a name.

        Raises:
            ConfigError: `source-kind` or `sink-kind`: there is none, or the package that brings it cannot be loaded.
        """
        code = f"{self.noun}-kind"
        if name in self.built_in:
            kind: Kind = import_module(self.built_in[name]).KIND
            return kind
        points = self._entry_points()
        if name not in points:
            guess = _guess(name, self.names())
            remedy = f"{guess}the kinds are {', '.join(self.names())}"
            raise ConfigError(code, f"there is no kind {bounded(name, 40)!r}", remedy=remedy)
        try:
            found = points[name].load()
        except Exception as error:
            raise ConfigError(
                code,
                f"kind {name} cannot be loaded from {points[name].value}: {type(error).__name__}: {error}",
                remedy="repair or remove the package that brings it",
            ) from error
        if not isinstance(found, self.form):
            raise ConfigError(
                code,
                f"kind {name}: {points[name].value} is no {self.form.__name__}",
                remedy=f"see the tutorial in {self.tutorial}",
            )
        return found

    def typed(self, configured: Configured, base: type[Options]) -> Options:
        """Read the options of one source or sink under the rules of its kind, whose options derive from `base`.

        Raises:
            ConfigError: `source-config` or `sink-config`, naming it; the remedy says what the option takes.
        """
        code, who = f"{self.noun}-config", f"{self.noun} {configured.name}"
        try:
            options = self.find(configured.kind).options
        except ConfigError as error:
            raise ConfigError(code, f"{who}: {error.sentence}", remedy=error.remedy) from error
        known = options_of(options)
        listed = f"`bedside agent {self.noun}s kinds {bounded(configured.kind, 40)}` lists what it takes"
        for strange in (key for key in configured.options if key not in known):
            sentence = f"{who}: there is no option {bounded(strange, 40)!r}"
            near = difflib.get_close_matches(strange, known, n=3, cutoff=0.5)
            remedy = f"{_guess(strange, list(known))}{''.join(f'{key}: {known[key]}; ' for key in near)}{listed}"
            raise ConfigError(code, sentence, remedy=remedy)
        try:
            found = msgspec.convert({"name": configured.name, **configured.options}, type=options)
        except msgspec.ValidationError as error:
            wrong = _OPTION.search(str(error))
            key = wrong[1] if wrong is not None and wrong[1] in known else ""
            told = f"{key}: {known[key]} ({forms_of(options)[key]}); " if key else ""
            raise ConfigError(code, f"{who}: {error}", remedy=told + listed) from error
        if not isinstance(found, base):
            raise ConfigError(code, f"{who}: the options of its kind are no {base.__name__}", remedy=self.tutorial)
        return found

    def _entry_points(self) -> dict[str, EntryPoint]:
        from importlib.metadata import entry_points  # 3 MB that a device with known kinds does not need

        return {point.name: point for point in entry_points(group=self.group)}


AnyKinds = Kinds[Any]


def options_of(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What a kind takes in its `options`: each option in a few words."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: get_args(hint)[1].description for name, hint in hints.items() if get_origin(hint) is Annotated}


def forms_of(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What form each option of a kind has, in words: its type, or the values that it may have."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: _form(get_args(hint)[0]) for name, hint in hints.items() if get_origin(hint) is Annotated}


def _form(hint: object) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) in {Union, UnionType}:
        return " or ".join(_form(one) for one in get_args(hint) if one is not NoneType)
    if get_origin(hint) is tuple or get_origin(hint) is list:
        return f"list of {_form(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return f"table of {_form(get_args(hint)[1])}"
    if get_origin(hint) is Annotated:
        return _form(get_args(hint)[0])
    return _FORMS.get(hint, "table") if isinstance(hint, type) else "value"


def named(error: ConfigError, who: str) -> ConfigError:
    """An error whose sentence says whose it is, `source ward` or `sink out`: several of a kind may be configured."""
    if error.sentence.startswith(f"{who}: "):
        return error
    return ConfigError(error.code, f"{who}: {error.sentence}", remedy=error.remedy)


def not_made(error: Exception, who: str, kind: str) -> ConfigError:
    """What a kind's `build` failed with that is none of our errors, as one that names whose it is.

    Args:
        error: of any library, or of another package.
        who: `source ward` or `sink out`.
        kind: of it.
    """
    return ConfigError(
        f"{who.partition(' ')[0]}-config",
        f"{who}: its kind, {bounded(kind, 40)}, fails to make it: {describe(error)}",
        remedy="check its options; repair or remove the package that brings it",
    )


def require(module: str, package: str) -> None:
    """Refuse a kind whose library is not installed; nothing is imported.

    Args:
        module: of the library.
        package: what brings it, as pip knows it.

    Raises:
        ConfigError: `extra-missing`.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigError("extra-missing", f"this kind needs {module}", remedy=how_to_install(package))


def _guess(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""
