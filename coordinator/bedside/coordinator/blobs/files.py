"""Content-addressed files.

Invariants:
    * A file under its digest is complete: it was written beside, synchronised, and renamed; then its directory was
      synchronised. Whoever finds it after a power cut finds all of it.
    * Blobs are never changed, so that writing the same bytes again is harmless and a reader needs no lock.
    * What `read` returns has the digest it was asked for: a disk that rots cannot pass unseen. `chunks` leaves that to
      who receives them.

Two families, in folders of their own: BLAKE2b-256 for signed things, models and header sets, BLAKE3 for uploads, mask
sums and opened sums (6.6 times faster where it matters).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from blake3 import blake3

from bedside.core.errors import StoreError
from bedside.core.limits import MAX_CHUNK_BYTES
from bedside.core.signing import digest as blake2b_digest
from bedside.service.files import sync_directory, write_durable

Family = Literal["blake2b", "blake3"]
DIGEST_BYTES: Final = 32
LOST_CODES: Final = frozenset({"no-blob", "blob-damaged"})
"""Codes of what asking again does not bring back; other errors of a store may pass, as a full disk does."""


class BlobStore:
    """The blobs below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, data: bytes, family: Family = "blake2b") -> bytes:
        """Store `data` and return its digest once it is durable.

        Raises:
            StoreError: `file-write` or `blob-write`.
        """
        name = _digest(data, family)
        path = self._path(name, family)
        if not path.exists():
            with writing("blob-write", "a blob"):
                self._make_folder(path)
            write_durable(path, data)
        return name

    def adopt(self, temporary: Path, name: bytes, family: Family) -> None:
        """Move a complete, synchronised file to its digest. The caller verified the digest.

        Raises:
            StoreError: `blob-write`.
        """
        path = self._path(name, family)
        with writing("blob-write", "a blob"):
            self._make_folder(path)
            temporary.replace(path)
            sync_directory(path.parent)
            sync_directory(temporary.parent)

    def has(self, name: bytes, family: Family) -> bool:
        """Whether that blob is here."""
        return len(name) == DIGEST_BYTES and self._path(name, family).exists()

    def find(self, name: bytes) -> Family:
        """The family that holds `name`.

        Raises:
            StoreError: `no-blob`.
        """
        for family in ("blake2b", "blake3"):
            if self.has(name, family):
                return family
        raise StoreError("no-blob", f"there is no blob {name.hex()[:16]}", remedy="ask again with the current plan")

    def size(self, name: bytes, family: Family) -> int:
        """Bytes of a blob that is here."""
        return self._path(name, family).stat().st_size

    def read(self, name: bytes, family: Family = "blake2b") -> bytes:
        """All bytes of a blob, hashed again.

        Raises:
            StoreError: `blob-damaged` when they are not those that were stored, or as `chunks`.
        """
        data = b"".join(self.chunks(name, family))
        if _digest(data, family) != name:
            raise _damaged(name, "its bytes are not those that were stored")
        return data

    def chunks(
        self, name: bytes, family: Family, *, offset_bytes: int = 0, chunk_bytes: int = MAX_CHUNK_BYTES
    ) -> Iterator[bytes]:
        """The bytes of a blob from an offset on, a chunk at a time.

        Raises:
            StoreError: `no-blob`, `blob-damaged` when the disk cannot read it, or `blob-read` when it may another time.
        """
        try:
            with self._path(name, family).open("rb") as file:
                file.seek(offset_bytes)
                while data := file.read(chunk_bytes):
                    yield data
        except FileNotFoundError as error:
            raise StoreError("no-blob", f"there is no blob {name.hex()[:16]} here", remedy=_RESTORE) from error
        except OSError as error:
            if error.errno == errno.EIO:
                raise _damaged(name, f"{error.strerror}") from error
            sentence = f"blob {name.hex()[:16]} cannot be read: {error.strerror}"
            raise StoreError("blob-read", sentence, remedy="check the permissions of the blobs' directory") from error

    def _path(self, name: bytes, family: Family) -> Path:
        text = name.hex()
        return self.root / family / text[:2] / text

    def _make_folder(self, path: Path) -> None:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_directory(path.parent.parent)


_RESTORE: Final = "check the disk, and restore the blob from a backup"


def _digest(data: bytes, family: Family) -> bytes:
    return blake2b_digest(data) if family == "blake2b" else blake3(data).digest()


def _damaged(name: bytes, why: str) -> StoreError:
    return StoreError("blob-damaged", f"blob {name.hex()[:16]} is damaged: {why}", remedy=_RESTORE)


@contextmanager
def writing(code: str, what: str) -> Iterator[None]:
    """Name failures of writing: StoreError `code`."""
    try:
        yield
    except OSError as error:
        sentence = f"{what} could not be stored: {error.strerror or error}"
        raise StoreError(code, sentence, remedy="free disk space") from error


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
