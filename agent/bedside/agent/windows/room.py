"""Room for more windows than fit into memory: those beyond a bound lie sealed in a nameless file.

The file has no name from the moment on in which it is made, and its key is in this process's memory alone: whatever
ends the process, nobody can read it any more. So there is nothing in it to erase.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from bedside.core.clock import Entropy
from bedside.core.errors import StoreError
from bedside.ondevice.runtimes import Float32

_CHUNK: Final = 256
"""Windows of one piece of memory."""
_NUMBER_BYTES: Final = 8
DISK_RESERVE_BYTES: Final = 256 << 20
"""Free bytes that stay for samples, which come first: an hour of many streams, and the models of a round."""


@dataclass(frozen=True, slots=True)
class Aside:
    """Where windows go that do not fit into memory.

    Attributes:
        memory_bytes: up to so many are in memory, and at least one chunk.
        directory: where the file is made; on a disk, not in memory.
        entropy: for the key and the nonces.
        reserve_bytes: that stay free on that disk.
    """

    memory_bytes: int
    directory: Path
    entropy: Entropy
    reserve_bytes: int = DISK_RESERVE_BYTES


class Room:
    """Places for windows of one shape, numbered from 0; a place is filled in turn, and may be filled again.

    Args:
        shape: samples and channels of a window.
        aside: where windows go beyond a bound; None keeps all of them in memory.
    """

    def __init__(self, shape: tuple[int, int], aside: Aside | None = None) -> None:
        self._shape = shape
        window_bytes = 4 * shape[0] * shape[1]
        chunk_bytes = window_bytes * _CHUNK
        self._in_memory = max(1, aside.memory_bytes // chunk_bytes) * _CHUNK if aside is not None else sys.maxsize
        self._chunks: list[Float32] = []
        self._file = _SealedFile(window_bytes, aside) if aside is not None else None

    def put(self, place: int, window: Float32) -> None:
        """Fill a place.

        Raises:
            StoreError: `room-write`.
        """
        if self._file is not None and place >= self._in_memory:
            self._file.write(place - self._in_memory, window.astype("<f4", copy=False).tobytes())
            return
        if place // _CHUNK == len(self._chunks):
            self._chunks.append(np.empty((_CHUNK, *self._shape), np.float32))
        self._chunks[place // _CHUNK][place % _CHUNK] = window

    def take(self, places: list[int]) -> Float32:
        """Windows (N, L, C) of these places, in their order.

        Raises:
            StoreError: `room-read`.
        """
        found = np.empty((len(places), *self._shape), np.float32)
        for row, place in enumerate(places):
            if self._file is not None and place >= self._in_memory:
                found[row] = np.frombuffer(self._file.read(place - self._in_memory), "<f4").reshape(self._shape)
            else:
                found[row] = self._chunks[place // _CHUNK][place % _CHUNK]
        return found

    def close(self) -> None:
        """Give memory and disk back."""
        self._chunks.clear()
        if self._file is not None:
            self._file.close()


class _SealedFile:
    """Records of one size in a nameless file, by number."""

    def __init__(self, record_bytes: int, aside: Aside) -> None:
        self._aside = aside
        self._box = SecretBox(aside.entropy.token_bytes(SecretBox.KEY_SIZE))
        self._sealed_bytes = SecretBox.NONCE_SIZE + SecretBox.MACBYTES + _NUMBER_BYTES + record_bytes
        self._file: BinaryIO | None = None
        self._end = 0

    def write(self, number: int, content: bytes) -> None:
        plain = number.to_bytes(_NUMBER_BYTES, "little") + content
        sealed = self._box.encrypt(plain, self._aside.entropy.token_bytes(SecretBox.NONCE_SIZE))
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._aside.directory, buffering=0)  # noqa: SIM115 - see close
            if number >= self._end:
                self._look(number)
            if os.pwrite(self._file.fileno(), sealed, number * self._sealed_bytes) != len(sealed):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StoreError(
                "room-write",
                f"windows that do not fit into memory cannot be put aside: {error.strerror or error}",
                remedy="make room on the disk, or raise training.examples_mib",
            ) from error

    def _look(self, number: int) -> None:
        """Before the file grows by another chunk: what is to stay free must be."""
        free_bytes = shutil.disk_usage(self._aside.directory).free
        if free_bytes - _CHUNK * self._sealed_bytes < self._aside.reserve_bytes:
            raise OSError(errno.ENOSPC, f"{free_bytes >> 20} MiB are free, which samples may need")
        self._end = number + _CHUNK

    def read(self, number: int) -> bytes:
        try:
            descriptor = self._file.fileno() if self._file is not None else -1
            plain = self._box.decrypt(os.pread(descriptor, self._sealed_bytes, number * self._sealed_bytes))
        except (OSError, CryptoError, ValueError) as error:
            raise _unread() from error
        if plain[:_NUMBER_BYTES] != number.to_bytes(_NUMBER_BYTES, "little"):
            raise _unread()
        return plain[_NUMBER_BYTES:]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _unread() -> StoreError:
    return StoreError("room-read", "a window that was put aside cannot be read again", remedy="look at the disk")
