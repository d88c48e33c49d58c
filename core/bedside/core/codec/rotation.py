"""The randomised Hadamard rotation, in blocks: spreads a few large coordinates over many small ones.

A segment of B blocks of b = r c words (r >= c, both powers of two) is read as an array (r, B, c). Block k takes
[:, k, :], that is r runs of c neighbours at equal distances, so that every layer of a net meets every block; plain
runs of b words would leave a loud layer alone in its blocks, above the quantiser's range. Each block is multiplied
by random signs and by the b x b Hadamard matrix / sqrt(b), which is orthonormal. Rotated words are stored block by
block.

Two implementations of one map:
- `rotate_blocks` (device): two small matrix products per block, because H_b = H_r (x) H_c. Fast; the last bit may
  differ between BLAS libraries, which stochastic rounding makes irrelevant.
- `unrotate` (everybody who opens a sum): butterflies in float32 in one fixed order of additions and subtractions
  only, so that all machines get the same bits.

Law: unrotate(rotate(x)) equals x up to float32 rounding (relative 2e-6 of the block's norm).
Source: Suresh et al., Distributed Mean Estimation with Limited Communication, ICML 2017, section 3.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.codec.keystream import KeyStream

FloatArray = npt.NDArray[np.float32]

GROUP_WORDS: Final = 1 << 16
"""Words that are rotated at a time: 256 KiB of float32, inside the second-level cache of a small computer."""
_PURPOSE: Final = b"bedside-rotate"
_BYTE_BITS: Final = 8


def block_shape(block: int) -> tuple[int, int]:
    """Rows r and columns c of a block: r c = block, r = c or r = 2 c."""
    power = block.bit_length() - 1
    return 1 << (power - power // 2), 1 << (power // 2)


def blocks_per_group(block: int) -> int:
    """Blocks that are worked on at a time; their signs are whole bytes."""
    return GROUP_WORDS // block


class Signs:
    """The random signs of one segment, in the order of its words: bit 0 of a byte first, a set bit is minus."""

    def __init__(self, rotation_seed: bytes, segment_index: int) -> None:
        self._bits = KeyStream(rotation_seed, _PURPOSE, segment_index, GROUP_WORDS // _BYTE_BITS)

    def next(self, count: int) -> FloatArray:
        """The next `count` signs as +1 and -1. All but the last call must ask for a multiple of 8."""
        packed = self._bits.read(-(-count // _BYTE_BITS))
        return _sign_table().take(packed, axis=0).reshape(-1)[:count]


def rotate_blocks(blocks: FloatArray, spare: FloatArray) -> None:
    """Multiply each block by the normalised Hadamard matrix, in place.

    Args:
        blocks: shape (n, r, c), C order; holds the result.
        spare: an array of the same shape, overwritten.
    """
    _, rows, columns = blocks.shape
    np.matmul(_hadamard(rows), blocks, out=spare)
    np.matmul(spare, _hadamard(columns), out=blocks)


def unrotate(rotated: FloatArray, block: int, signs: Signs) -> FloatArray:
    """The inverse rotation of a whole segment, bit for bit the same everywhere.

    Args:
        rotated: shape (B b,), block by block.
        block: b.
        signs: fresh signs of this segment.

    Returns:
        The segment in its own order, shape (B b,), padding included.
    """
    rows, columns = block_shape(block)
    count = rotated.size // block
    flat = np.empty((rows, count, columns), np.float32)
    group = blocks_per_group(block)
    scale = np.float32(1.0 / math.sqrt(block))
    for start in range(0, count, group):
        blocks = rotated[start * block : (start + group) * block].reshape(-1, block)
        lanes = np.ascontiguousarray(blocks.T)  # a block per column, so that every butterfly runs over long rows
        _butterflies(lanes)
        lanes *= scale
        lanes *= signs.next(blocks.size).reshape(blocks.shape).T
        flat[:, start : start + group, :] = lanes.reshape(rows, columns, -1).transpose(0, 2, 1)
    return flat.reshape(-1)


def _butterflies(lanes: FloatArray) -> None:
    """Unnormalised Walsh-Hadamard transform along axis 0, in place, smallest distance first."""
    size, width = lanes.shape
    spare = np.empty((size // 2, width), np.float32)
    half = 1
    while half < size:
        pairs = lanes.reshape(size // (2 * half), 2, half * width)
        low, high = pairs[:, 0], pairs[:, 1]
        total = spare.reshape(low.shape)
        np.add(low, high, out=total)
        np.subtract(low, high, out=high)
        low[...] = total
        half *= 2


@lru_cache(maxsize=8)
def _hadamard(size: int) -> FloatArray:
    """Sylvester's Hadamard matrix over sqrt(size); symmetric and its own inverse."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.sqrt(np.float32(size)), np.float32)


@lru_cache(maxsize=1)
def _sign_table() -> FloatArray:
    """The eight signs of every byte, shape (256, 8)."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return 1.0 - 2.0 * bits.astype(np.float32)
