"""Parts under lock: PyNaCl SecretBox over a header and the compressed samples.

Invariant: the sealed bytes name their stream, session and second. A blob moved to another row, stream or session
opens only to a refusal, and every salvaged blob proves itself.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from bedside.agent.buffer.codec import decode_samples, encode_samples
from bedside.agent.buffer.part import Part
from bedside.core.clock import Entropy
from bedside.core.errors import MalformedError, StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Quality
from bedside.service.keys import create_secret, load_secret

KEY_BYTES: Final = SecretBox.KEY_SIZE
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


def load_or_create_key(path: Path, entropy: Entropy) -> bytes:
    """Read the buffer's key at `path`, or make it on the first start.

    Raises:
        ConfigError: `key-mode`, `key-owner`, `key-size`.
        StoreError: `file-write`.
    """
    return load_secret(path, KEY_BYTES) if path.exists() else create_secret(path, KEY_BYTES, entropy)


class Sealer:
    """Seals and opens parts with one key."""

    def __init__(self, key: bytes, entropy: Entropy | None = None) -> None:
        """Prepare. Without `entropy` it only opens."""
        self._box = SecretBox(key)
        self._entropy = entropy

    def seal(self, part: Part) -> bytes:
        """Return `part` compressed, bound to its place, and encrypted under a fresh nonce."""
        if self._entropy is None:
            raise StoreError("seal-read-only", "this reader of the buffer cannot write")
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
        plain = _LENGTH.pack(len(header)) + header + encode_samples(part.values)
        return bytes(self._box.encrypt(plain, self._entropy.token_bytes(SecretBox.NONCE_SIZE)))

    def open(self, sealed: bytes, stream: str, session: str, second: int) -> Part:
        """Return the part in `sealed`, which must be the one of this place.

        Raises:
            StoreError: `blob-sealed` when it does not open with this key, `blob-swapped` when it belongs elsewhere.
            MalformedError: `blob-format`.
        """
        try:
            plain = self._box.decrypt(sealed)
        except (CryptoError, ValueError, TypeError) as error:
            raise StoreError(
                "blob-sealed", "a signal blob does not open", remedy="restore the buffer's key, or let it be salvaged"
            ) from error
        header, data = _split(plain)
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


def _split(plain: bytes) -> tuple[_Header, bytes]:
    if len(plain) < _LENGTH.size:
        raise MalformedError("blob-format", "a signal blob is too short")
    end = _LENGTH.size + _LENGTH.unpack_from(plain)[0]
    try:
        header = msgspec.msgpack.decode(plain[_LENGTH.size : end], type=_Header)
    except msgspec.DecodeError as error:
        raise MalformedError("blob-format", "a signal blob has no header") from error
    return header, plain[end:]
