"""What is said of a parser: what it reads, valid inputs, and the errors that it may raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from forms import Form, plain
from google.protobuf.message import Message

from bedside.core.errors import (
    BedsideError,
    MalformedError,
)

NOW_S: Final = 1_800_000_000


@dataclass(frozen=True, kw_only=True)
class Parser:
    """One parser.

    Attributes:
        name: stable; `make fuzz PARSER=name`.
        reads: dotted names of the functions that take the bytes.
        parse: takes the bytes.
        seeds: inputs that it accepts.
        form: how inputs are changed so that what is inside gets reached.
        allowed: errors that it may raise.
        base_bytes: memory that it may take whatever the input.
        times: memory that it may take per byte of input.
    """

    name: str
    reads: tuple[str, ...]
    parse: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    form: Form = plain
    allowed: tuple[type[BedsideError], ...] = (MalformedError,)
    base_bytes: int = 1 << 20
    times: int = 64


PARSERS: Final[dict[str, Parser]] = {}


def add(
    name: str,
    reads: str,
    parse: Callable[[bytes], object],
    valid: Sequence[bytes],
    form: Form = plain,
    *allowed: type[BedsideError],
    **limits: int,
) -> None:
    """Register a parser; `reads` names functions below `bedside`; `MalformedError` is always allowed."""
    functions = tuple(f"bedside.{one}" for one in reads.split())
    assert name not in PARSERS, name
    PARSERS[name] = Parser(
        name=name,
        reads=functions,
        parse=parse,
        seeds=tuple(valid),
        form=form,
        allowed=(MalformedError, *allowed),
        **limits,
    )


def wire(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
