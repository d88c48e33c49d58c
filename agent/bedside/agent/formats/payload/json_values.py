"""Values of a JSON document by path, under bounds that are checked before anything is built.

A path names members by dots and items by brackets: `vitals.hr`, `readings[0].value`, `["a.b"].c`; one that begins with
`$.` starts at the top of the document.

Source: RFC 8259; the paths are the part of RFC 9535 (JSONPath) that names one value.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from bedside.agent.formats.json_names import TEXTS, has_repeated_names
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.unreadable import UNREADABLE

MAX_JSON_BYTES: Final = 256 << 10
"""Bytes of a document: a monitor's message has some hundred, an hour of minute values some ten thousand."""
MAX_DEPTH: Final = 16
MAX_VALUES: Final = 16_384
"""Values and brackets of one document."""
MAX_PATH_CHARS: Final = 200

ABSENT: Final = object()
"""What `value_at` returns where the document has nothing."""

Path = tuple[str | int, ...]

_STEP: Final = re.compile(r'\.([^.\[\]"\s]+)|\[(0|[1-9][0-9]{0,4})\]|\["([^"]+)"\]', re.ASCII)
_NO_BRACKET: Final = bytes(sorted(set(range(256)) - set(b"[]{}")))


def read_json(data: bytes) -> object:
    """The value of a document.

    Raises:
        MalformedError: `json-size`, `json-form`, `json-repeats` (an object has a name twice).
    """
    opened = data.count(b"[") + data.count(b"{")
    if len(data) > MAX_JSON_BYTES or opened + data.count(b",") > MAX_VALUES:
        raise MalformedError("json-size", "a JSON document is too large")
    if opened > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise MalformedError("json-size", f"a JSON document is nested deeper than {MAX_DEPTH}")
    try:
        value = msgspec.json.decode(data)
    except UNREADABLE as error:
        raise MalformedError("json-form", "it is no JSON document") from error
    if has_repeated_names(data, value):
        raise MalformedError("json-repeats", "an object of a JSON document has two values of one name")
    return value


def parse_path(text: str) -> Path:
    """Read a path; one from the top begins with the step `$`.

    Raises:
        ConfigError: `json-path`.
    """
    whole = text if text.startswith("[") else f".{text}"
    steps: list[str | int] = []
    at = 0
    while at < len(whole) <= MAX_PATH_CHARS and (found := _STEP.match(whole, at)):
        steps.append(int(found[2]) if found[2] else found[1] or found[3])
        at = found.end()
    if not steps or at < len(whole) or len(steps) > MAX_DEPTH:
        raise ConfigError(
            "json-path",
            f"{text[:40]!r} is no path of a JSON document",
            remedy='write it as vitals.hr, readings[0].value or ["odd name"]; $.x starts at the top',
        )
    return tuple(steps)


def value_at(top: object, here: object, path: Path) -> object:
    """What lies at `path`, from `here` or, for a path that begins with `$`, from `top`; `ABSENT` where nothing does."""
    value, steps = (top, path[1:]) if path[0] == "$" else (here, path)
    for step in steps:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step, ABSENT)
        elif isinstance(step, int) and isinstance(value, list) and step < len(value):
            value = value[step]
        else:
            return ABSENT
    return value


def _depth(data: bytes) -> int:
    """The deepest nesting, of any bytes."""
    depth = deepest = 0
    for mark in TEXTS.sub(b"", data).translate(None, _NO_BRACKET):
        depth += 1 if mark in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
