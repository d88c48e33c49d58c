"""One record as bytes: its values, units and quality, in msgpack.

A missing value is NaN. Units are kept for the fields that have one.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from bedside.agent.buffer.seal import Place
from bedside.core.errors import MalformedError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Quality, Record
from bedside.core.unreadable import UNREADABLE

MAX_FIELDS: Final = 256
MAX_NAME_CHARACTERS: Final = 64
"""Characters of a field's name, and of a unit."""
MAX_RECORD_BYTES: Final = 192 << 10
"""Above 256 fields of two names of 64 characters, four bytes each, and a number."""


class _Content(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    values: dict[str, float]
    units: dict[str, str]
    quality: int


_DECODER: Final = msgspec.msgpack.Decoder(_Content)


def record_place(stream: StreamId, session: SessionId, time_ns: int) -> Place:
    """What a sealed record is bound to."""
    return ("record", stream, session, time_ns)


def encode_record(record: Record) -> bytes:
    """Pack what is in `record` beside its place.

    Raises:
        MalformedError: `record-format` outside the limits, or for an infinite value.
    """
    values = {name: float(value) for name, value in record.values.items()}
    units = {name: unit for name, unit in record.units.items() if name in values}
    content = _Content(values, units, int(record.quality))
    _check(content)
    try:
        return msgspec.msgpack.encode(content)
    except UnicodeEncodeError as error:
        raise MalformedError("record-format", "a field's name is not Unicode") from error


def decode_record(data: bytes, stream: StreamId, time_ns: int) -> Record:
    """Unpack what `encode_record` packed.

    Raises:
        MalformedError: `record-format`.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise MalformedError("record-format", f"a record exceeds {MAX_RECORD_BYTES} bytes")
    try:
        content = _DECODER.decode(data)
    except UNREADABLE as error:
        raise MalformedError("record-format", "a record does not unpack") from error
    _check(content)
    return Record(stream, time_ns, content.values, content.units, Quality(content.quality))


def _check(content: _Content) -> None:
    names = [*content.values, *content.units, *content.units.values()]
    if not 1 <= len(content.values) <= MAX_FIELDS:
        raise MalformedError("record-format", f"a record has 1 to {MAX_FIELDS} fields")
    if any(len(name) > MAX_NAME_CHARACTERS for name in names) or "" in content.values:
        raise MalformedError("record-format", f"a field's name has 1 to {MAX_NAME_CHARACTERS} characters")
    if not content.units.keys() <= content.values.keys():
        raise MalformedError("record-format", "a record has a unit of a field that it does not have")
    if any(math.isinf(value) for value in content.values.values()):
        raise MalformedError("record-format", "a value of a record is infinite", remedy="NaN stands for a missing one")
    if not 0 <= content.quality <= max(Quality) * 2 - 1:
        raise MalformedError("record-format", "a record has quality flags that do not exist")
