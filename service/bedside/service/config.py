"""Configuration: one TOML file, its drop-ins, and a msgspec Struct that says what is allowed.

Invariants:
    * An unknown key is an error that names the file, the line and the nearest known key: a misspelt limit must never
      fall back to its default in silence.
    * Drop-ins `conf.d/*.toml` beside the file are merged in the order of their names; a later value wins, tables merge.
    * A relative path in a file is relative to that file's directory.
"""

from __future__ import annotations

import difflib
import errno
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import inspect

from bedside.core.errors import ConfigError
from bedside.service.files import read_regular
from bedside.service.text import bounded

Config = TypeVar("Config", bound=msgspec.Struct)

DROP_IN_FOLDER: Final = "conf.d"
MAX_CONFIG_BYTES: Final = 1 << 20
"""Bytes of one configuration file."""

MAX_KEY_PARTS: Final = 64
"""Parts of a dotted key; tomllib takes minutes for one of a hundred thousand."""

_LONG_KEY = re.compile(rf"(?<![\w\"'-])(?:[\w\"'-]{{1,64}}[ \t]*\.[ \t]*){{{MAX_KEY_PARTS}}}")
_PROBLEM = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]+)`")
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_INDEX = re.compile(r"\[[^\]]*\]")
_STEP = re.compile(r"\[[^\]]*\]|[^.\[\]]+")


def load_config(path: Path, kind: type[Config]) -> Config:
    """Read the file at `path` and its drop-ins into a `kind`.

    Raises:
        ConfigError: `config-missing`, `config-toml`, `config-unknown-key`, `config-type` or `config-missing-key`.
    """
    merged: dict[str, object] = {}
    origins: dict[str, Path] = {}
    shape = _shape_of(kind)
    for file in (path, *sorted((path.parent / DROP_IN_FOLDER).glob("*.toml"))):
        values = _read_toml(file)
        for keys, known in _unknown_keys(values, shape, ()):
            raise _unknown_key(file, keys, known)
        _merge(merged, values, file, origins, "")
    return _convert(merged, kind, path, origins)


def parse_config(text: str, kind: type[Config], file: Path) -> Config:
    """Read configuration that is not in a folder of its own, such as embedded defaults; `file` is its name in errors.

    Raises:
        ConfigError: as `load_config`.
    """
    values = _parse_toml(text, file)
    for keys, known in _unknown_keys(values, _shape_of(kind), ()):
        raise _unknown_key(file, keys, known, text)
    return _convert(values, kind, file, {}, text)


@cache
def _shape_of(kind: type[msgspec.Struct]) -> inspect.Type:
    """Which keys a Struct has; costs more than reading a file."""
    return inspect.type_info(kind)


def config_digest(config: msgspec.Struct) -> bytes:
    """Return BLAKE2b-256 (32 bytes) of the effective configuration, defaults included, in a canonical form."""
    encoded = msgspec.json.encode(config, enc_hook=str, order="sorted")
    return blake2b(encoded, digest_size=32).digest()


def read_config_bytes(file: Path, what: str, remedy: str) -> bytes:
    """The bytes of a configuration file, called `what` in errors.

    Raises:
        ConfigError: `config-missing`, also for a FIFO or a device, or `config-toml` where it is too large.
    """
    try:
        return read_regular(file, MAX_CONFIG_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ConfigError("config-toml", f"{file} is larger than {MAX_CONFIG_BYTES} bytes") from error
        sentence = f"{what} {file} cannot be read: {error.strerror}"
        raise ConfigError("config-missing", sentence, remedy=remedy) from error


def _read_toml(file: Path) -> dict[str, object]:
    remedy = f"create it, or name another file ({file.name} is expected there)"
    data = read_config_bytes(file, "the configuration", remedy)
    try:
        return _parse_toml(data.decode("utf-8"), file)
    except UnicodeDecodeError as error:
        raise ConfigError("config-toml", f"{file} is not UTF-8 text", remedy="save it as UTF-8") from error


def _parse_toml(text: str, file: Path) -> dict[str, object]:
    if _LONG_KEY.search(text):
        raise ConfigError("config-toml", f"{file} has a key of more than {MAX_KEY_PARTS} parts")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits is no TOMLDecodeError
        raise ConfigError(
            "config-toml", f"{file} is not TOML: {bounded(str(error))}", remedy="correct that line"
        ) from error


def _merge(
    into: dict[str, object], values: Mapping[str, object], file: Path, origins: dict[str, Path], prefix: str
) -> None:
    for key, value in values.items():
        dotted = f"{prefix}.{key}"
        old = into.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            _merge(old, value, file, origins, dotted)
        elif isinstance(value, dict):
            fresh: dict[str, object] = {}
            into[key] = fresh
            origins[dotted] = file
            _merge(fresh, value, file, origins, dotted)
        else:
            into[key] = value
            origins[dotted] = file


Found = tuple[tuple[str, ...], list[str]]


def _unknown_keys(value: object, shape: inspect.Type, at: tuple[str, ...]) -> Iterator[Found]:
    """Yield the path of each key that no Struct knows, with the keys known at its place."""
    if isinstance(shape, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in shape.fields}
        yield from (((*at, key), list(fields)) for key in value if key not in fields)
        parts = [(key, item, fields[key]) for key, item in value.items() if key in fields]
    else:
        parts = list(_parts(value, shape))
    for key, item, part_shape in parts:
        yield from _unknown_keys(item, part_shape, (*at, key) if key else at)


def _parts(value: object, shape: inspect.Type) -> Iterator[tuple[str, object, inspect.Type]]:
    """Yield key (or nothing), value and shape of what is inside a table, an array, or an optional value."""
    if isinstance(shape, inspect.UnionType):
        yield from (("", value, option) for option in shape.types)
    elif isinstance(shape, inspect.DictType) and isinstance(value, dict):
        yield from ((key, item, shape.value_type) for key, item in value.items())
    elif isinstance(shape, inspect.ListType | inspect.VarTupleType) and isinstance(value, list):
        yield from (("", item, shape.item_type) for item in value)


def _unknown_key(file: Path, keys: tuple[str, ...], known: list[str], text: str | None = None) -> ConfigError:
    near = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.5)
    if near:
        remedy = f"did you mean {near[0]!r}?"
    else:
        remedy = f"known here: {', '.join(sorted(known))}" if known else "nothing can be set here"
    name = bounded(".".join(keys), 120)
    line = _line_of(keys[-1], file.read_text("utf-8") if text is None else text)
    return ConfigError("config-unknown-key", f"{file}{line}: {name!r} is not a key", remedy=remedy)


def _line_of(key: str, text: str) -> str:
    pattern = re.compile(rf"""^\s*(\[+[^\]]*)?["']?{re.escape(key)}["']?\s*(=|\.|\])""")
    lines = [number for number, line in enumerate(text.splitlines(), start=1) if pattern.search(line)]
    return f":{lines[0]}" if len(lines) == 1 else ""


def _convert(
    values: dict[str, object], kind: type[Config], path: Path, origins: dict[str, Path], text: str = ""
) -> Config:
    def decode(target: type, value: object) -> object:
        if target is not Path:
            raise NotImplementedError(f"{target} cannot be configured")
        if not isinstance(value, str) or "\0" in value:
            raise ValueError("Expected a path as `str`")  # msgspec adds the place
        try:
            return path.parent / Path(value).expanduser()
        except RuntimeError as error:
            raise ValueError("Expected a path; there is no user of that name with a home") from error

    try:
        return msgspec.convert(values, kind, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise _type_error(str(error), path, origins, text, _shape_of(kind)) from error


def _placed(dotted: str, text: str) -> tuple[str, str]:
    """The innermost key of `dotted` that one line of the text sets, and that line; else its first key, and nothing."""
    keys = dotted.split(".")
    for key in reversed(keys):
        if _KEY.fullmatch(key) and (line := _line_of(key, text)):
            return (key if key == keys[0] else dotted), line
    return keys[0], ""


def _choices(shape: inspect.Type, at: str) -> list[str]:
    """The values that may stand at a place such as `.tasks[...].mode`, where they can be counted."""
    shapes = _options(shape)
    for step in _STEP.findall(at):
        inside: list[inspect.Type] = []
        for one in shapes:
            if isinstance(one, inspect.StructType):
                inside += [field.type for field in one.fields if field.encode_name == step]
            elif isinstance(one, inspect.DictType):
                inside.append(one.value_type)
            elif isinstance(one, inspect.ListType | inspect.VarTupleType):
                inside.append(one.item_type)
        shapes = [option for one in inside for option in _options(one)]
    return [str(value) for one in shapes if isinstance(one, inspect.LiteralType) for value in one.values]


def _options(shape: inspect.Type) -> list[inspect.Type]:
    if isinstance(shape, inspect.Metadata):
        return _options(shape.type)
    return list(shape.types) if isinstance(shape, inspect.UnionType) else [shape]


def _type_error(
    problem: str, path: Path, origins: Mapping[str, Path], text: str = "", shape: inspect.Type | None = None
) -> ConfigError:
    match = _PROBLEM.fullmatch(problem)
    what, at = (match["what"], match["path"] or "") if match else (problem, "")
    file = origins.get(_INDEX.sub("", at), path)
    place = f"{at.lstrip('.')!r}" if at else "the top level"
    missing = _MISSING.match(what)
    if missing:
        key = f"{at}.{missing['key']}".lstrip(".")
        return ConfigError("config-missing-key", f"{file}: the key {key!r} is missing", remedy=f"add {key} = ...")
    if not text:
        with suppress(OSError, UnicodeDecodeError):
            text = file.read_text("utf-8")
    # A rule over several values names the first of them at the beginning of its sentence.
    named = _INDEX.sub("", at).lstrip(".") if at else what.partition(" ")[0]
    key, line = _placed(named, text)
    if "[" in at:
        place = f"an entry of {named!r}"
    elif line and not at:
        place = f"{key!r}"
    remedy = what[:1].lower() + what[1:]
    if shape is not None and what.startswith("Invalid enum value ") and (choices := _choices(shape, at)):
        remedy += f": one of {', '.join(choices)}"
    return ConfigError("config-type", f"{file}{line}: {place} has a wrong value", remedy=bounded(remedy, 400))
