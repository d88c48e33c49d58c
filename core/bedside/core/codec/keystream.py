"""Deterministic bytes from a seed: signs of a rotation (public seed) and rounding bits (secret key)."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

SEED_BYTES: Final = 32
"""Bytes of a rotation seed or rounding key."""
_ZERO_START: Final = bytes(16)


class KeyStream:
    """ChaCha20 (RFC 8439, zero nonce) under BLAKE2b-256(seed; purpose, index), read in order.

    Args:
        seed: 32 bytes.
        purpose: at most 16 bytes that separate one use of a seed from another.
        index: separates the segments of one layout.
        largest_read: bytes of the one buffer that all reads share.
    """

    def __init__(self, seed: bytes, purpose: bytes, index: int, largest_read: int) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms  # 6 MB, needed while an update is made

        suffix = index.to_bytes(4, "little")
        key = hashlib.blake2b(suffix, key=seed, person=purpose, digest_size=SEED_BYTES).digest()
        self._cipher = Cipher(algorithms.ChaCha20(key, _ZERO_START), mode=None).encryptor()
        self._zeros = memoryview(bytes(largest_read))
        self._stream = bytearray(largest_read)

    def read(self, count: int) -> npt.NDArray[np.uint8]:
        """The next `count` bytes, in the shared buffer: valid until the next read."""
        self._cipher.update_into(self._zeros[:count], self._stream)
        return np.frombuffer(self._stream, np.uint8, count)
