"""New parameters into the bytes of `infer.tflite`: where each tensor lies, and how to write it there.

A device has no toolkit for that format and needs none: its author says at which byte the weights, scales and biases
are, and a refresh writes over them. Neither the graph nor the length of the file ever changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from bedside.core.bundle.bounds import MAX_NAME_CHARS, MAX_PATCHES, MAX_TENSOR_RANK
from bedside.core.bundle.tensors import Array
from bedside.core.errors import MalformedError

_LITTLE_ENDIAN: Final = "<"


class Patch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place in the file that follows from the parameters.

    Attributes:
        tensor: its name in `bedside.core.bundle.quantise.quantise_parameters` or `real_tensors`.
        offset: of its first byte in the file.
        size: bytes.
        axes: order in which the file has the tensor's axes; empty = as they are.
    """

    tensor: str
    offset: int
    size: int
    axes: tuple[int, ...] = ()


def check_patches(patches: Sequence[Patch], file_bytes: int) -> None:
    """Check a table before anything is written by it: in the file, in order, and no byte twice.

    Raises:
        MalformedError: `bad-manifest`.
    """
    if not 0 < len(patches) <= MAX_PATCHES:
        raise _bad(f"a table of patches has 1 to {MAX_PATCHES} entries, not {len(patches)}")
    end = 0
    for patch in patches:
        if not end <= patch.offset < patch.offset + patch.size <= file_bytes:
            raise _bad(f"the patch at byte {patch.offset} overlaps the one before it, or ends outside the file")
        if not 0 < len(patch.tensor) <= MAX_NAME_CHARS or len(patch.axes) > MAX_TENSOR_RANK:
            raise _bad(f"the patch at byte {patch.offset} has a bad name or too many axes")
        if sorted(patch.axes) != list(range(len(patch.axes))):
            raise _bad(f"the patch at byte {patch.offset} does not name each axis once")
        end = patch.offset + patch.size


def apply_patches(model: bytes, patches: Sequence[Patch], tensors: Mapping[str, Array]) -> bytes:
    """Return `model` with `tensors` written over it; the table was checked against its length.

    Raises:
        MalformedError: `bad-manifest`: a patch names a tensor that the model does not have, or one of another size.
    """
    patched = bytearray(model)
    for patch in patches:
        array = tensors.get(patch.tensor)
        if array is None or array.nbytes != patch.size or len(patch.axes) not in {0, array.ndim}:
            raise _bad(f"the patch at byte {patch.offset} does not fit the tensor {patch.tensor!r}")
        ordered = array.transpose(patch.axes) if patch.axes else array
        data = np.ascontiguousarray(ordered, array.dtype.newbyteorder(_LITTLE_ENDIAN))
        patched[patch.offset : patch.offset + patch.size] = data.tobytes()
    return bytes(patched)


def _bad(sentence: str) -> MalformedError:
    return MalformedError("bad-manifest", sentence, remedy="build the bundle again with `bedside model build`")
