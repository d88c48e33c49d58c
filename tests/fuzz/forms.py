"""Structure-aware changes: the outside stays whole (lengths, checksums, canonical form), what is inside is not.

A form is a function (data, rng, others) -> data, like the changes of `mutation`; one that cannot read `data` returns it
changed as plain bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec
import numpy as np
from cobs import cobs
from fastcrc import crc16
from google.protobuf.message import DecodeError, Message
from mutation import INTERESTING, Change, mutate

from bedside.core.unreadable import UNREADABLE

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63 - 1, -(2**63), 1.5, -0.0, 1e308, 5e-324, "", "x", "x" * 500),
    *("\0", "\u202e", "\ud7ff", "1", [], {}, [[]], {"": 0}),
)


def plain(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """No structure."""
    return mutate(data, rng, others)


def message(kind: type[Message]) -> Change:
    """Protobuf: a field somewhere in the tree is set, cleared or repeated; the encoding stays the deterministic one."""

    def change(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
        told = kind()
        try:
            told.ParseFromString(data)
        except DecodeError:
            return mutate(data, rng, others)
        for _ in range(rng.choice((1, 1, 2, 4))):
            _change_message(told, rng)
        return told.SerializeToString(deterministic=True)

    return change


def _change_message(told: Message, rng: Random) -> None:
    if not told.DESCRIPTOR.fields:
        return
    field = rng.choice(told.DESCRIPTOR.fields)
    value = getattr(told, field.name)
    inner = field.message_type is not None
    is_map = inner and field.message_type.GetOptions().map_entry
    if is_map or rng.random() < 0.15:
        told.ClearField(field.name)
    elif field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED:
        _change_list(value, field, rng)
    elif inner:
        _change_message(value, rng)
        value.SetInParent()
    else:
        setattr(told, field.name, _scalar(field, value, rng))


def _change_list(values: Any, field: Any, rng: Random) -> None:
    chance = rng.random()
    if not values or chance < 0.2:
        values.add() if field.message_type is not None else values.append(_scalar(field, None, rng))
    elif chance < 0.4:
        del values[rng.randrange(len(values))]
    elif chance < 0.6:
        again = values[rng.randrange(len(values))]
        values.extend([again] * rng.choice((1, 1, 30)))
    elif field.message_type is not None:
        _change_message(values[rng.randrange(len(values))], rng)
    else:
        place = rng.randrange(len(values))
        values[place] = _scalar(field, values[place], rng)


def _scalar(field: Any, value: Any, rng: Random) -> Any:
    if field.cpp_type == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.type == field.TYPE_STRING:
        return rng.choice(("", "x", "x" * 500, "\0", "é", "\u202e", "a/../b", (value or "") + "x", (value or "")[:-1]))
    if field.type == field.TYPE_BYTES:
        old = value or b""
        return rng.choice((b"", old[:-1], old + b"\0", bytes(len(old)), rng.randbytes(32), mutate(old, rng, [old])))
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return rng.choice((0.0, -1.0, 1e300, float("nan"), float("inf")))
    if field.cpp_type == field.CPPTYPE_ENUM:
        return rng.choice((0, 1, 2, 3, 77))
    bits = 31 if field.cpp_type in (field.CPPTYPE_INT32,) else 32 if field.cpp_type == field.CPPTYPE_UINT32 else 63
    bits += field.cpp_type == field.CPPTYPE_UINT64
    most = (1 << bits) - 1
    old = value or 0
    return max(0, min(most, rng.choice((*INTERESTING, old + 1, old - 1, old * 2, most, rng.getrandbits(bits)))))


def json(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """JSON with sorted keys and no spaces: a value somewhere in the tree becomes another."""
    try:
        told = msgspec.json.decode(data)
    except UNREADABLE:
        return mutate(data, rng, others)
    for _ in range(rng.choice((1, 1, 2, 3))):
        told = _change_value(told, rng)
    return msgspec.json.encode(told, order="sorted")


def _change_value(value: Any, rng: Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.93:
        return _change_table(value, rng)
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        if rng.random() < 0.25:
            return value[:place] + value[place + 1 :] if rng.random() < 0.5 else value + value[place:] * 2
        return [*value[:place], _change_value(value[place], rng), *value[place + 1 :]]
    if isinstance(value, int | float) and rng.random() < 0.5:
        return rng.choice((value + 1, value - 1, -value, value * 2, value * 1000))
    return rng.choice(_VALUES)


def _change_table(value: dict[str, Any], rng: Random) -> dict[str, Any]:
    key = rng.choice(list(value))
    chance = rng.random()
    if chance < 0.1:
        return {name: one for name, one in value.items() if name != key}
    if chance < 0.15:
        return value | {rng.choice(("", "x", key + "x")): value[key]}
    return value | {key: _change_value(value[key], rng)}


def tensors(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """safetensors: the header is changed as JSON and its length follows."""
    size = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3 or size > len(data):
        return mutate(data, rng, others)
    header = json(data[8 : 8 + size], rng, others)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def frames(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """A board's wire: one payload is changed, its checksum and stuffing follow."""
    pieces = data.split(b"\0")
    place = rng.randrange(len(pieces))
    try:
        payload = cobs.decode(pieces[place])[:-2]
    except cobs.DecodeError:
        return mutate(data, rng, others)
    payload = mutate(payload, rng, [payload, b"\x01\x01", b"\x02\0"])
    pieces[place] = cobs.encode(payload + crc16.ibm_3740(payload).to_bytes(2, "little"))
    return b"\0".join(pieces)


def arrays(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """An .npz file: one member is changed as bytes, dropped, or becomes another array; the zip is whole."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # noqa: BLE001  # what zipfile raises is not the matter here
        return mutate(data, rng, others)
    if not members:
        return data
    name = rng.choice(list(members))
    chance = rng.random()
    if chance < 0.1:
        del members[name]
    elif chance < 0.5:
        members[name] = mutate(members[name], rng, list(members.values()))
    else:
        made = io.BytesIO()
        np.save(made, _array(rng))
        members[name] = made.getvalue()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for one, content in members.items():
            archive.writestr(one, content)
    return packed.getvalue()


def _array(rng: Random) -> np.ndarray:
    kind = rng.choice(("<i2", ">i4", "<f4", "<f8", "<c8", "?", "<U3", "S2", "<M8[ns]", "<i8", "V3", "<u8"))
    shape = rng.choice(((), (0,), (1,), (7,), (7, 2), (2, 0), (3, 1, 1)))
    count = int(np.prod(shape))
    return np.frombuffer(rng.randbytes(max(1, count) * np.dtype(kind).itemsize), kind)[:count].reshape(shape)


def either(*forms: Change) -> Change:
    """One of several, by chance."""

    def change(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
        return rng.choice(forms)(data, rng, others)

    return change


Form = Callable[[bytes, Random, Sequence[bytes]], bytes]
