"""Uploads that are still arriving, and words that arrive in one call.

An upload has one file, whose length is how far its sender may forget its bytes.

Invariants:
    * A byte is acknowledged only after `fsync`: the sender goes on from `received_bytes` after any crash of either.
    * A file becomes a blob only after its whole content matched the digest that the sender signed. One that does not
      match is thrown away as a whole, because nobody can say which of its bytes are wrong.
    * What comes in one call leaves nothing when the call ends before it was adopted, or the process does.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from blake3 import blake3

from bedside.coordinator.blobs.files import BlobStore, writing
from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.limits import MAX_CHUNK_BYTES

_HASH_CHUNK_BYTES: Final = 1 << 18
_CALL_SUFFIX: Final = ".call"


class Incoming:
    """Bytes on their way to becoming a blob, hashed as they come.

    Attributes:
        received_bytes: how many came.
    """

    def __init__(self, file: BinaryIO, path: Path, blobs: BlobStore) -> None:
        self._file = file
        self._path = path
        self._blobs = blobs
        self._hasher = blake3()
        self.received_bytes = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises StoreError `upload-write`."""
        with writing("upload-write", "an upload"):
            self._file.write(data)
        self._hasher.update(data)
        self.received_bytes += len(data)

    def finish(self) -> bytes:
        """Make the bytes durable and return their BLAKE3; raises StoreError `upload-write`."""
        with writing("upload-write", "an upload"):
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._hasher.digest()

    def adopt(self) -> None:
        """Turn the finished bytes into a blob; raises StoreError `blob-write`."""
        self._blobs.adopt(self._path, self._hasher.digest(), "blake3")


class Staging:
    """The folder of unfinished uploads beside the blobs that they become."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._folder = blobs.root / "staging"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._calls = itertools.count()
        for left in self._folder.glob(f"*{_CALL_SUFFIX}"):
            left.unlink()

    def received_bytes(self, name: bytes) -> int:
        """How many bytes of the upload `name` (digest of its header) are here."""
        path = self._path(name)
        return path.stat().st_size if path.exists() else 0

    def append(self, name: bytes, offset_bytes: int, data: bytes, total_bytes: int) -> int:
        """Write a piece where it belongs and return the new length once that is durable.

        A piece that is here already is skipped, so that a repeated call is harmless.

        Raises:
            ProtocolError: `upload-gap` when bytes before it are missing.
            MalformedError: `upload-too-long`.
            StoreError: `upload-write`.
        """
        have = self.received_bytes(name)
        if offset_bytes > have:
            raise ProtocolError("upload-gap", f"bytes {have} to {offset_bytes} of the upload are missing")
        if offset_bytes + len(data) > total_bytes or len(data) > MAX_CHUNK_BYTES:
            raise MalformedError("upload-too-long", f"the upload is longer than the {total_bytes} bytes of its header")
        fresh = data[have - offset_bytes :]
        with writing("upload-write", "an upload"), self._path(name).open("ab") as file:
            file.write(fresh)
            file.flush()
            os.fsync(file.fileno())
        return have + len(fresh)

    def finish(self, name: bytes, upload_blake3: bytes) -> None:
        """Turn a complete upload into a blob; a repeated call finds it done.

        Raises:
            MalformedError: `upload-digest`; the bytes are dropped and the sender may start again.
            StoreError: `upload-write` or `blob-write`; the bytes stay.
        """
        path = self._path(name)
        if not path.exists() and self._blobs.has(upload_blake3, "blake3"):
            return
        hasher = blake3()
        with writing("upload-write", "an upload"), path.open("rb") as file:
            while data := file.read(_HASH_CHUNK_BYTES):
                hasher.update(data)
        if hasher.digest() != upload_blake3:
            path.unlink()
            raise MalformedError(
                "upload-digest",
                "the bytes of the upload are not those that its header signed",
                remedy="send them again from the first byte",
            )
        self._blobs.adopt(path, upload_blake3, "blake3")

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A file for what one call brings; it is gone afterwards unless it was adopted.

        Raises:
            StoreError: `upload-write`.
        """
        path = self._folder / f"{next(self._calls)}{_CALL_SUFFIX}"
        try:
            with writing("upload-write", "an upload"), path.open("xb") as file:
                yield Incoming(file, path, self._blobs)
        finally:
            path.unlink(missing_ok=True)

    def drop(self, name: bytes) -> None:
        """Forget an unfinished upload whose round is over."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: bytes) -> Path:
        return self._folder / name.hex()
