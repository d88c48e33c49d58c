"""Masks: a 32-byte key expanded to ring words and added to, or taken from, a vector in place.

The stream is ChaCha20 of RFC 8439 with a zero nonce (every key masks one vector only) and the block counter
from zero, read as little-endian words of the ring's machine word: 16 bits up to w = 16, 32 bits above.
Reducing such a word modulo 2^w leaves it exactly uniform, because 2^w divides its modulus.

The stream is expanded in chunks into one reused buffer: page faults of a large fresh buffer cost more than
the cipher itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from bedside.core.limits import MASK_CHUNK_BYTES
from bedside.core.securesum.ring import Words, reduce_in_place, word_dtype

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

MASK_KEY_BYTES: Final = 32
"""Bytes of a ChaCha20 key."""
_CIPHER_BLOCK_BYTES: Final = 64
_NONCE: Final = bytes(12)


class MaskExpander:
    """Expands keys through one buffer of `MASK_CHUNK_BYTES`. Not for use by two threads at once.

    Law: applying a key with `subtract` after applying it without restores the vector; applying it piecewise
    by `start_word` equals applying it once to the whole.
    """

    def __init__(self) -> None:
        self._stream = bytearray(MASK_CHUNK_BYTES)
        self._zeros = memoryview(bytes(MASK_CHUNK_BYTES))

    def apply(self, words: Words, key: bytes, word_bits: int, *, subtract: bool, start_word: int = 0) -> None:
        """Add (or subtract) the mask of `key` to `words` modulo 2^w, in place.

        Args:
            words: the vector, or the piece of it that begins at `start_word`; dtype `word_dtype(word_bits)`.
            key: 32 secret bytes, used for one vector only.
            word_bits: w of the ring.
            subtract: take the mask away instead of adding it.
            start_word: how many words of the mask's stream precede this piece.

        Raises:
            ValueError: wrong key length, dtype or start (a bug of the caller).
        """
        dtype = word_dtype(word_bits)
        if words.dtype != dtype or words.ndim != 1:
            raise ValueError(f"expected a vector of {dtype}, got {words.dtype} with {words.ndim} dimensions")
        start_block, skip_bytes = divmod(start_word * dtype.itemsize, _CIPHER_BLOCK_BYTES)
        cipher = _cipher_at(key, start_block)
        if skip_bytes:
            cipher.update(bytes(skip_bytes))
        combine = np.subtract if subtract else np.add
        mask = np.frombuffer(self._stream, dtype.newbyteorder("<"))
        for start in range(0, words.size, mask.size):
            piece = words[start : start + mask.size]
            cipher.update_into(self._zeros[: piece.nbytes], self._stream)
            combine(piece, mask[: piece.size], out=piece)
            reduce_in_place(piece, word_bits)


def apply_mask(words: Words, key: bytes, word_bits: int, *, subtract: bool) -> None:
    """`MaskExpander.apply` for one mask; whoever expands several keeps an expander."""
    MaskExpander().apply(words, key, word_bits, subtract=subtract)


def _cipher_at(key: bytes, block: int) -> CipherContext:
    """ChaCha20 whose next byte is the first of 64-byte block number `block` of the key's stream."""
    if len(key) != MASK_KEY_BYTES:
        raise ValueError(f"a mask key has {MASK_KEY_BYTES} bytes, not {len(key)}")
    if not 0 <= block < 1 << 32:
        raise ValueError(f"the stream of a mask has no block {block}")
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms  # 6 MB, needed while an update is masked

    initial = block.to_bytes(4, "little") + _NONCE
    return Cipher(algorithms.ChaCha20(key, initial), mode=None).encryptor()
