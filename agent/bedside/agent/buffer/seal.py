"""Rows under lock: PyNaCl SecretBox over a header that names the row's place, and its content.

Invariant: the sealed bytes name their stream, session and time. A blob moved to another row, stream or session opens
only to a refusal, and every salvaged row proves itself.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Final

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from bedside.agent.buffer.codec import decode_samples, encode_samples
from bedside.agent.buffer.keys import Keys, key_id, ring_of
from bedside.core.clock import Entropy
from bedside.core.errors import MalformedError, StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Quality
from bedside.core.unreadable import UNREADABLE
from bedside.ondevice.windows.part import Part

Place = tuple[str | int | float | bytes, ...]
"""Where a sealed row belongs."""

_LENGTH: Final = struct.Struct("<H")


class _Header(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    stream: str
    session: str
    second: int
    start_ns: int
    rate_hz: float
    samples: int
    channels: int
    dtype: str
    unit: str
    metric: str
    scale: float
    quality: int


class Sealer:
    """Seals with the newest key of a ring, and opens with any of them.

    Attributes:
        key_id: of the key that seals; it goes into the column of that name.
    """

    def __init__(self, keys: Keys, entropy: Entropy | None = None) -> None:
        """Prepare. Without `entropy` it only opens."""
        self.ring = ring_of(keys)
        self._boxes = [SecretBox(key) for key in self.ring.keys]
        self._entropy = entropy
        self.key_id = key_id(self.ring.newest)

    def seal(self, part: Part) -> bytes:
        """Return `part` compressed, bound to its place, and encrypted under a fresh nonce."""
        header = msgspec.msgpack.encode(
            _Header(
                part.stream,
                part.session,
                part.second,
                part.start_ns,
                part.rate_hz,
                part.values.shape[0],
                part.values.shape[1],
                part.values.dtype.name,
                part.unit,
                part.metric,
                part.scale,
                int(part.quality),
            )
        )
        return self._encrypt(_LENGTH.pack(len(header)) + header + encode_samples(part.values))

    def open(self, sealed: bytes, stream: str, session: str, second: int) -> Part:
        """Return the part in `sealed`, which must be the one of this place.

        Raises:
            StoreError: `blob-sealed` when it opens with no key, `blob-swapped` when it belongs elsewhere.
            MalformedError: `blob-format`.
        """
        header, data = _split(self._decrypt(sealed))
        if (header.stream, header.session, header.second) != (stream, session, second):
            raise StoreError("blob-swapped", "a signal blob belongs to another stream, session or second")
        return Part(
            StreamId(header.stream),
            SessionId(header.session),
            header.second,
            header.start_ns,
            header.rate_hz,
            decode_samples(data, header.samples, header.channels, header.dtype),
            header.unit,
            header.metric,
            header.scale,
            Quality(header.quality),
        )

    def seal_row(self, place: Place, content: bytes) -> bytes:
        """Return `content` of a row of another table, bound to its place and encrypted under a fresh nonce.

        Args:
            place: table, stream, session, and whatever else the row's plain columns say that must be true.
            content: encoded and, where that pays, compressed by the caller.
        """
        head = msgspec.msgpack.encode(place)
        return self._encrypt(_LENGTH.pack(len(head)) + head + content)

    def open_row(self, sealed: bytes, place: Place) -> bytes:
        """Return the content that was sealed for this very place.

        Raises:
            StoreError: `blob-sealed`, `blob-swapped`.
        """
        plain, head = self._decrypt(sealed), msgspec.msgpack.encode(place)
        end = _LENGTH.size + len(head)
        if plain[:end] != _LENGTH.pack(len(head)) + head:
            raise StoreError("blob-swapped", "a sealed row belongs to another place")
        return plain[end:]

    def opens(self, sealed: bytes) -> bool:
        """Whether the bytes are whole and one of the keys is theirs, wherever they belong."""
        try:
            self._decrypt(sealed)
        except StoreError:
            return False
        return True

    def reseal(self, sealed: bytes) -> bytes:
        """Return the same content under the newest key.

        Raises:
            StoreError: `blob-sealed`.
        """
        return self._encrypt(self._decrypt(sealed))

    def _encrypt(self, plain: bytes) -> bytes:
        if self._entropy is None:
            raise StoreError("seal-read-only", "this reader of the buffer cannot write")
        return bytes(self._boxes[0].encrypt(plain, self._entropy.token_bytes(SecretBox.NONCE_SIZE)))

    def _decrypt(self, sealed: bytes) -> bytes:
        for box in self._boxes:
            with suppress(CryptoError, ValueError, TypeError):
                return bytes(box.decrypt(sealed))
        raise StoreError(
            "blob-sealed", "a sealed row does not open", remedy="restore the buffer's key, or let it be salvaged"
        )


def _split(plain: bytes) -> tuple[_Header, bytes]:
    if len(plain) < _LENGTH.size:
        raise MalformedError("blob-format", "a signal blob is too short")
    end = _LENGTH.size + _LENGTH.unpack_from(plain)[0]
    try:
        header = msgspec.msgpack.decode(plain[_LENGTH.size : end], type=_Header)
    except UNREADABLE as error:
        raise MalformedError("blob-format", "a signal blob has no header") from error
    return header, plain[end:]
