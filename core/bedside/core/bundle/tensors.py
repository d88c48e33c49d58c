"""Named arrays as bytes: the safetensors format, the part of it that a bundle needs.

Layout: 8 bytes little-endian header length, a JSON object {name: {dtype, shape, data_offsets}}, then the
data. Here the tensors must cover the data without a gap or overlap: one set of arrays has no second reading.

Source: the safetensors format description, version 0.4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, cast

import msgspec
import numpy as np
import numpy.typing as npt

from bedside.core.bundle.bounds import (
    MAX_NAME_CHARS,
    MAX_TENSOR_HEADER_BYTES,
    MAX_TENSOR_RANK,
    MAX_TENSORS,
)
from bedside.core.errors import MalformedError
from bedside.core.unreadable import UNREADABLE

Array = (
    npt.NDArray[np.float32]
    | npt.NDArray[np.float64]
    | npt.NDArray[np.int8]
    | npt.NDArray[np.uint8]
    | npt.NDArray[np.int32]
    | npt.NDArray[np.int64]
)
Tensors = Mapping[str, Array]

_DTYPES: Final[dict[str, np.dtype[np.generic]]] = {
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_CODES: Final[dict[np.dtype[np.generic], str]] = {dtype: code for code, dtype in _DTYPES.items()}
_LENGTH_BYTES: Final = 8


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


_HEADER: Final = msgspec.json.Decoder(dict[str, _Entry])


def encode_tensors(tensors: Tensors) -> bytes:
    """Return `tensors` as safetensors bytes; the same arrays always give the same bytes.

    Wide dtypes come first, then names in order, so that every array is aligned to its item size.

    Raises:
        ValueError: a dtype that the format does not hold here.
    """
    header: dict[str, _Entry] = {}
    chunks: list[bytes] = []
    position = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
        array = tensors[name]
        if array.dtype not in _CODES:
            raise ValueError(f"{name} has dtype {array.dtype}")
        end = position + array.nbytes
        header[name] = _Entry(_CODES[array.dtype], array.shape, (position, end))
        chunks.append(array.tobytes())
        position = end
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return b"".join([len(text).to_bytes(_LENGTH_BYTES, "little"), text, *chunks])


def decode_tensors(data: bytes) -> dict[str, Array]:
    """Parse safetensors bytes into read-only views of `data`.

    Raises:
        MalformedError: `bad-tensors`; nothing was allocated for a tensor that does not fit.
    """
    size = int.from_bytes(data[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + size
    if len(data) < _LENGTH_BYTES or size > MAX_TENSOR_HEADER_BYTES or start > len(data):
        raise _bad("the header does not fit")
    try:
        header = _HEADER.decode(data[_LENGTH_BYTES:start])
    except UNREADABLE as error:
        raise _bad(f"the header cannot be read: {str(error)[:200]}") from error
    if len(header) > MAX_TENSORS:
        raise _bad(f"a file has at most {MAX_TENSORS} tensors")
    arrays: dict[str, Array] = {}
    position = start
    for name, entry in sorted(header.items(), key=lambda item: item[1].data_offsets):
        array = _view(data, name, entry, position, start)
        position += array.nbytes
        arrays[name] = array
    if position != len(data):
        raise _bad("the data does not end with the last tensor")
    return arrays


def float_tensors(data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Parse the tensors of a checkpoint or an optimiser's state.

    Raises:
        MalformedError: `bad-tensors`, or `bad-checkpoint` when one is not float32.
    """
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for name, array in decode_tensors(data).items():
        if array.dtype != np.float32:
            raise MalformedError("bad-checkpoint", f"tensor {name!r} of a checkpoint is not float32")
        tensors[name] = array.astype(np.float32, copy=False)
    return tensors


def _view(data: bytes, name: str, entry: _Entry, position: int, start: int) -> Array:
    dtype = _DTYPES.get(entry.dtype)
    if dtype is None or not 0 < len(name) <= MAX_NAME_CHARS or len(entry.shape) > MAX_TENSOR_RANK:
        raise _bad(f"tensor {name[:MAX_NAME_CHARS]!r} has an unknown dtype, a bad name or too many axes")
    if any(axis < 0 for axis in entry.shape):
        raise _bad(f"tensor {name!r} has a negative axis")
    count = math.prod(entry.shape)
    begin, end = (start + offset for offset in entry.data_offsets)
    if begin != position or end - begin != count * dtype.itemsize or end > len(data):
        raise _bad(f"tensor {name!r} does not lie where the one before it ends")
    try:
        return cast("Array", np.frombuffer(data, dtype, count, begin).reshape(entry.shape))
    except ValueError as error:  # axes beside an empty one may be larger than any array
        raise _bad(f"tensor {name!r} has axes that no array has") from error


def _bad(sentence: str) -> MalformedError:
    return MalformedError("bad-tensors", sentence, remedy="fetch or build the file again")
