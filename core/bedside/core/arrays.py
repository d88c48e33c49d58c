"""What the header of a .npy file announces, before anybody allocates it.

Source: NEP 1, the format of .npy files.
"""

from __future__ import annotations

import io
import math
import tokenize
import warnings
from typing import Final

from numpy.lib.format import read_array_header_1_0, read_magic

from bedside.core.errors import MalformedError

HEAD_BYTES: Final = 10_016
"""Bytes of the longest header that numpy believes, and of what stands before it."""


def announced_bytes(head: bytes) -> int:
    """Return how many bytes the whole file has by its own header.

    Args:
        head: the file's first `HEAD_BYTES`, or all of it.

    Raises:
        MalformedError: `bad-array`: it is no plain array of numbers or text in format 1.0, which is what numpy writes
            for them.
    """
    file = io.BytesIO(head)
    try:
        version = read_magic(file)
        if version != (1, 0):
            raise ValueError(f"it has format {version}")
        with warnings.catch_warnings(action="error"):  # numpy repairs what older versions wrote, and says so
            shape, _, dtype = read_array_header_1_0(file)
    except (ValueError, TypeError, SyntaxError, Warning, RecursionError, tokenize.TokenError) as error:
        raise MalformedError("bad-array", f"this is no array: {str(error)[:200]}") from error
    if dtype.hasobject or any(axis < 0 for axis in shape):
        raise MalformedError("bad-array", "it holds more than numbers and text")
    return file.tell() + math.prod(shape) * dtype.itemsize
