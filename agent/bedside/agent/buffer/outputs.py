"""The outputs of one prediction as bytes: name, value and unit of each, in msgpack; nothing of a classification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from bedside.agent.buffer.rows import Output
from bedside.core.bundle.bounds import MAX_LABELS, MAX_NAME_CHARS
from bedside.core.errors import MalformedError
from bedside.core.unreadable import UNREADABLE

MAX_OUTPUTS_BYTES: Final = 160 << 10
"""Above `MAX_LABELS` outputs of two names of `MAX_NAME_CHARS` characters, four bytes each, and a number."""

_DECODER: Final = msgspec.msgpack.Decoder(list[tuple[str, float, str]])


def encode_outputs(outputs: Sequence[Output]) -> bytes:
    """Pack outputs; none become no bytes."""
    return msgspec.msgpack.encode(list(outputs)) if outputs else b""


def decode_outputs(data: bytes) -> tuple[Output, ...]:
    """Unpack what `encode_outputs` packed.

    Raises:
        MalformedError: `outputs-format`.
    """
    if not data:
        return ()
    if len(data) > MAX_OUTPUTS_BYTES:
        raise MalformedError("outputs-format", f"the outputs of a prediction exceed {MAX_OUTPUTS_BYTES} bytes")
    try:
        outputs = tuple(Output(*one) for one in _DECODER.decode(data))
    except UNREADABLE as error:
        raise MalformedError("outputs-format", "the outputs of a prediction do not unpack") from error
    if not 1 <= len(outputs) <= MAX_LABELS or any(
        not 0 < len(one.name) <= MAX_NAME_CHARS or len(one.unit) > MAX_NAME_CHARS or not math.isfinite(one.value)
        for one in outputs
    ):
        raise MalformedError("outputs-format", "the outputs of a prediction hold what cannot be")
    return outputs
