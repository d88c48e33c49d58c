"""A sealed file that is written and read a piece at a time: what a training leaves on the disk.

    file  = frame*
    frame = length(4, little endian) || SecretBox(file id(16) || place(8, little endian) || content)

Invariant: sealed under a key of its own, derived from the buffer's for one purpose; every frame names its file and its
place, and opens at no other.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import BinaryIO, Final

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from bedside.core.clock import Entropy
from bedside.core.errors import MalformedError

_LENGTH: Final = struct.Struct("<I")
_PLACE: Final = struct.Struct("<16sQ")
_FILE_ID_BYTES: Final = 16


class FrameWriter:
    """Writes the frames of one file, in turn.

    Args:
        file: empty.
        key: of the buffer.
        purpose: at most 16 bytes; a file of one purpose does not open for another.
        entropy: for the file's id and the nonces.
    """

    def __init__(self, file: BinaryIO, key: bytes, purpose: bytes, entropy: Entropy) -> None:
        self._file = file
        self._box = _box(key, purpose)
        self._entropy = entropy
        self._file_id = entropy.token_bytes(_FILE_ID_BYTES)
        self._place = 0

    def write(self, content: bytes) -> None:
        """Seal the next frame."""
        plain = _PLACE.pack(self._file_id, self._place) + content
        sealed = self._box.encrypt(plain, self._entropy.token_bytes(SecretBox.NONCE_SIZE))
        self._file.write(_LENGTH.pack(len(sealed)))
        self._file.write(sealed)
        self._place += 1


class FrameReader:
    """Opens the frames of one file; the first one that is read tells the file's id."""

    def __init__(self, key: bytes, purpose: bytes) -> None:
        self._box = _box(key, purpose)
        self._file_id = b""

    def read(self, file: BinaryIO, place: int, max_bytes: int) -> bytes:
        """The content of the frame that begins where `file` stands, which must be the one of that place.

        Args:
            file: positioned.
            place: its number in the file.
            max_bytes: of the frame.

        Raises:
            MalformedError: `bad-frame`: it is cut short, too long, not sealed by us, or of another place or file.
        """
        head = file.read(_LENGTH.size)
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
        if not 0 < length <= min(max_bytes, os.fstat(file.fileno()).st_size):
            raise MalformedError("bad-frame", "a frame of a sealed file is cut short or too long")
        try:
            plain = self._box.decrypt(file.read(length))
        except (CryptoError, ValueError, TypeError) as error:
            raise MalformedError("bad-frame", "a frame of a sealed file does not open") from error
        self._file_id = self._file_id or plain[:_FILE_ID_BYTES]
        if plain[: _PLACE.size] != _PLACE.pack(self._file_id, place):
            raise MalformedError("bad-frame", "a frame of a sealed file belongs elsewhere")
        return plain[_PLACE.size :]


def frame_bytes(content_bytes: int) -> int:
    """Size of a frame in the file."""
    return _LENGTH.size + SecretBox.NONCE_SIZE + SecretBox.MACBYTES + _PLACE.size + content_bytes


def _box(key: bytes, purpose: bytes) -> SecretBox:
    return SecretBox(hashlib.blake2b(key=key, digest_size=SecretBox.KEY_SIZE, person=purpose).digest())
