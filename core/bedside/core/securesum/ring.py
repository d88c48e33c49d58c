"""The ring Z_(2^w), w = 8..32: words in memory, packed words on the wire, and head-room for a sum.

Words live in uint16 up to w = 16 and in uint32 above. Adding two words wraps the machine word, and 2^w
divides its modulus, so that a running sum is only reduced when it is packed or read.

Invariant of the wire form: `unpack(pack(x, w), len(x), w)` equals x for every reduced x, and each vector has
exactly one encoding (the bits after the last word are zero, and are checked).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.limits import MAX_VECTOR_WORDS, MAX_WORD_BITS, MIN_WORD_BITS

Words = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
"""A vector of ring elements: one dimension, C order, dtype of `word_dtype`."""

_GROUP_WORDS: Final = 8
"""Eight words of w bits fill w whole bytes, whatever w is."""
_BYTE_BITS: Final = 8


def word_dtype(word_bits: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """The machine word that holds one ring element.

    Raises:
        MalformedError: `bad-word-bits` outside 8..32.
    """
    if not MIN_WORD_BITS <= word_bits <= MAX_WORD_BITS:
        raise MalformedError(
            "bad-word-bits",
            f"a ring of {word_bits} bits is not supported",
            remedy=f"use {MIN_WORD_BITS} to {MAX_WORD_BITS} bits",
        )
    return np.dtype(np.uint16) if word_bits <= 16 else np.dtype(np.uint32)


def word_mask(word_bits: int) -> int:
    """The largest ring element, 2^w - 1."""
    word_dtype(word_bits)
    return (1 << word_bits) - 1


def reduce_in_place(words: Words, word_bits: int) -> None:
    """Bring every word into 0..2^w - 1; costs nothing where the machine word is the ring."""
    if word_bits != word_dtype(word_bits).itemsize * _BYTE_BITS:
        np.bitwise_and(words, words.dtype.type(word_mask(word_bits)), out=words)


def packed_bytes(count: int, word_bits: int) -> int:
    """Bytes that `count` words take on the wire."""
    return (count * word_bits + _BYTE_BITS - 1) // _BYTE_BITS


def pack(words: Words, word_bits: int) -> bytes:
    """Pack reduced words tightly: word k takes the bits k w .. k w + w - 1, least significant bit first.

    Raises:
        ValueError: a word is not below 2^w, or the dtype is not that of the ring (a bug of the caller).
    """
    dtype = word_dtype(word_bits)
    if words.dtype != dtype or words.ndim != 1:
        raise ValueError(f"expected a vector of {dtype}, got {words.dtype} with {words.ndim} dimensions")
    if _is_machine_word(word_bits):
        return words.astype(dtype.newbyteorder("<"), copy=False).tobytes()
    if words.size and int(words.max()) > word_mask(word_bits):
        raise ValueError(f"a word is not reduced modulo 2^{word_bits}")
    groups = _columns(words, dtype)
    out = np.empty((groups.shape[1], word_bits), np.uint8)
    for byte in range(word_bits):
        first, shift = divmod(byte * _BYTE_BITS, word_bits)
        value = groups[first] >> shift
        if word_bits - shift < _BYTE_BITS:  # this byte ends in the next word; a group's last byte never does
            value |= groups[first + 1] << (word_bits - shift)
        out[:, byte] = value & 0xFF
    return out.tobytes()[: packed_bytes(words.size, word_bits)]


class Packer:
    """`pack` for a vector that comes in pieces: the bytes of all pieces and of `finish` are those of the whole."""

    def __init__(self, word_bits: int) -> None:
        self._word_bits = word_bits
        self._rest: Words = np.empty(0, word_dtype(word_bits))

    def pack(self, words: Words) -> bytes:
        """The bytes that are complete with these words; a group that is not stays here."""
        if _is_machine_word(self._word_bits):
            return pack(words, self._word_bits)
        joined = np.concatenate([self._rest, words]) if self._rest.size else words
        whole = joined.size - joined.size % _GROUP_WORDS
        self._rest = joined[whole:].copy()
        return pack(joined[:whole], self._word_bits)

    def finish(self) -> bytes:
        """The last bytes."""
        rest, self._rest = self._rest, self._rest[:0]
        return pack(rest, self._word_bits)


def unpack(data: bytes | bytearray | memoryview, count: int, word_bits: int) -> Words:
    """Read `count` packed words; a read-only view of `data` where w is 16 or 32 on a little-endian machine.

    Raises:
        MalformedError: `bad-word-bits`, `too-many-words`, `wrong-length` or `padding-not-zero`.
    """
    dtype = word_dtype(word_bits)
    if not 0 <= count <= MAX_VECTOR_WORDS:
        raise MalformedError("too-many-words", f"a vector of {count} words is not supported")
    if len(data) != packed_bytes(count, word_bits):
        raise MalformedError(
            "wrong-length",
            f"{count} words of {word_bits} bits take {packed_bytes(count, word_bits)} bytes, not {len(data)}",
        )
    if _is_machine_word(word_bits):
        view: Words = np.frombuffer(data, np.uint16) if word_bits == 16 else np.frombuffer(data, np.uint32)
        if dtype != dtype.newbyteorder("<"):
            view = view.byteswap()
        view.flags.writeable = False
        return view
    used_bits = count * word_bits % _BYTE_BITS
    if used_bits and data[-1] >> used_bits:
        raise MalformedError("padding-not-zero", "the bits after the last word are not zero")
    return _unpack_groups(data, count, word_bits)


def check_no_overflow(contributors: int, value_bits: int, word_bits: int, noise_tail: int = 0) -> None:
    """Refuse a ring that is too small for n values: n (2^bits - 1) + tail < 2^w must hold.

    Args:
        contributors: n, the most devices in one sum.
        value_bits: bits of one quantised value.
        word_bits: w.
        noise_tail: distance between the lowest and the highest noise that all trustees together can add to
            one word.

    Raises:
        ProtocolError: `ring-overflow`.
    """
    check_sum_fits(contributors, (1 << value_bits) - 1, word_bits, noise_tail)


def check_sum_fits(contributors: int, largest_word: int, word_bits: int, noise_tail: int = 0) -> None:
    """The rule of `check_no_overflow` for words in 0..`largest_word`.

    Raises:
        ProtocolError: `ring-overflow`.
    """
    if contributors * largest_word + noise_tail > word_mask(word_bits):
        raise ProtocolError(
            "ring-overflow",
            f"{contributors} words up to {largest_word} plus noise {noise_tail} overflow {word_bits} bits",
            remedy="use a wider ring, fewer bits per value, a smaller cap or fewer contributors",
        )


def _is_machine_word(word_bits: int) -> bool:
    return word_bits in (16, 32)


def _columns(words: Words, dtype: np.dtype[np.uint16] | np.dtype[np.uint32]) -> Words:
    """Zero-pad to whole groups, one contiguous row per position in the group: shape (8, groups)."""
    group_count = -(-words.size // _GROUP_WORDS)
    padded = np.zeros(group_count * _GROUP_WORDS, dtype)
    padded[: words.size] = words
    return np.ascontiguousarray(padded.reshape(group_count, _GROUP_WORDS).T)


def _unpack_groups(data: bytes | bytearray | memoryview, count: int, word_bits: int) -> Words:
    group_count = -(-count // _GROUP_WORDS)
    padded = np.zeros(group_count * word_bits, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    columns = np.ascontiguousarray(padded.reshape(group_count, word_bits).T)
    out = np.empty((group_count, _GROUP_WORDS), word_dtype(word_bits))
    for word in range(_GROUP_WORDS):
        byte, shift = divmod(word * word_bits, _BYTE_BITS)
        value = columns[byte].astype(np.uint32) >> shift
        filled_bits = _BYTE_BITS - shift
        while filled_bits < word_bits:  # the last byte may reach into the next word; the mask drops that
            byte += 1
            value |= columns[byte].astype(np.uint32) << filled_bits
            filled_bits += _BYTE_BITS
        out[:, word] = value & word_mask(word_bits)
    return out.reshape(-1)[:count]
