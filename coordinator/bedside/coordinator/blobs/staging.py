"""Uploads that are still arriving: one file each, whose length is how far the sender may forget its bytes.

Invariants:
    * A byte is acknowledged only after `fsync`: the sender goes on from `received_bytes` after any crash of either.
    * A file becomes a blob only after its whole content matched the digest that the sender signed. One that does not
      match is thrown away as a whole, because nobody can say which of its bytes are wrong.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from blake3 import blake3

from bedside.coordinator.blobs.files import BlobStore
from bedside.core.errors import MalformedError, ProtocolError, StoreError
from bedside.core.limits import MAX_CHUNK_BYTES

_HASH_CHUNK_BYTES: Final = 1 << 18


class Staging:
    """The folder of unfinished uploads beside the blobs that they become."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._folder = blobs.root / "staging"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

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
        try:
            with self._path(name).open("ab") as file:
                file.write(fresh)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(
                "upload-write", f"an upload could not be stored: {error.strerror}", remedy="free disk space"
            ) from error
        return have + len(fresh)

    def finish(self, name: bytes, upload_blake3: bytes) -> None:
        """Turn a complete upload into a blob; a repeated call finds it done.

        Raises:
            MalformedError: `upload-digest`; the bytes are dropped and the sender may start again.
        """
        path = self._path(name)
        if not path.exists() and self._blobs.has(upload_blake3, "blake3"):
            return
        hasher = blake3()
        with path.open("rb") as file:
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

    def drop(self, name: bytes) -> None:
        """Forget an unfinished upload whose round is over."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: bytes) -> Path:
        return self._folder / name.hex()
