"""Content-addressed blobs over a stream of chunks: resumed where they were cut off, believed only by their digest.

Invariants:
    * A file stands under its name only when its bytes have the digest that was asked for, and it is on the disk.
    * What arrived before a cut is kept beside the target and not fetched again; bytes that turn out wrong are dropped
      whole, so that the next attempt starts clean.
    * Sizes are checked before anything is written.

Source: DESIGN section 3 (blobs are content-addressed files); contracts of `GetBlob` in `protos/bedside/proto/v1`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterable, Callable, Iterator
from pathlib import Path
from typing import Final, Literal, Protocol

import blake3

from bedside.core.errors import MalformedError, StoreError, TrustError, UnavailableError
from bedside.core.limits import MAX_BLOB_BYTES, MAX_CHUNK_BYTES
from bedside.proto.v1.common_pb2 import BlobRequest, Chunk
from bedside.service.files import sync_directory

DigestKind = Literal["blake2b", "blake3"]
"""BLAKE2b-256 names manifests, checkpoints and tars; BLAKE3 names uploads and sums."""

GetBlob = Callable[[BlobRequest], AsyncIterable[Chunk]]
"""A stub's `GetBlob`, bound to its deadline."""

_READ_BYTES: Final = 1 << 18


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> object: ...

    def digest(self) -> bytes: ...


def new_hasher(kind: DigestKind) -> _Hasher:
    """An incremental hash with a digest of 32 bytes."""
    return hashlib.blake2b(digest_size=32) if kind == "blake2b" else blake3.blake3()


def file_digest(path: Path, kind: DigestKind = "blake2b") -> bytes:
    """Digest of the file at `path`, read in pieces (32 bytes)."""
    hasher = new_hasher(kind)
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            hasher.update(piece)
    return hasher.digest()


async def fetch_blob(
    get_blob: GetBlob,
    digest: bytes,
    target: Path,
    *,
    max_bytes: int = MAX_BLOB_BYTES,
    kind: DigestKind = "blake2b",
) -> Path:
    """Bring the blob `digest` to `target`, going on after what an earlier attempt left; returns `target`.

    A target that exists is believed: it was checked when it got its name.

    Args:
        get_blob: opens the stream at an offset.
        digest: 32 bytes; the blob's name and the only reason to believe its bytes.
        target: where the whole blob is to stand; its directory exists.
        max_bytes: refuses larger blobs before a byte is written.
        kind: which hash `digest` is.

    Raises:
        TrustError: `blob-digest`: the bytes are not the blob; nothing of them is kept.
        MalformedError: `bad-chunk`, or `blob-size` above `max_bytes`.
        UnavailableError: `blob-cut`: the stream ended early; call again.
        StoreError: `blob-write`.
    """
    if target.exists():
        return target
    partial = target.with_name(f".{target.name}.part")
    with _Partial(partial) as part:
        async for chunk in get_blob(BlobRequest(digest=digest, offset_bytes=part.size_bytes)):
            part.append(chunk, max_bytes)
        part.finish()
    if file_digest(partial, kind) != digest:
        partial.unlink()
        raise TrustError(
            "blob-digest",
            f"the bytes of blob {digest.hex()[:12]} do not have its digest",
            remedy="fetch it again; if that repeats, something between here and the sender alters data",
        )
    partial.replace(target)
    sync_directory(target.parent)
    return target


def read_chunks(path: Path, offset_bytes: int, *, chunk_bytes: int = MAX_CHUNK_BYTES) -> Iterator[Chunk]:
    """The file at `path` from `offset_bytes` on, as chunks; the sender's side of `fetch_blob`.

    An empty rest is one empty chunk, so that the reader learns the size.

    Raises:
        MalformedError: `bad-offset` behind the end of the file.
        StoreError: `blob-read`.
    """
    try:
        with path.open("rb") as file:
            total = os.fstat(file.fileno()).st_size
            if not 0 <= offset_bytes <= total:
                raise MalformedError("bad-offset", f"a blob of {total} bytes has no byte {offset_bytes}")
            file.seek(offset_bytes)
            at = offset_bytes
            while piece := file.read(chunk_bytes):
                yield Chunk(offset_bytes=at, data=piece, total_bytes=total)
                at += len(piece)
            if at == offset_bytes:
                yield Chunk(offset_bytes=at, total_bytes=total)
    except OSError as error:
        raise StoreError("blob-read", f"{path.name} cannot be read: {error.strerror}") from error


class _Partial:
    """The bytes of one blob so far."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise StoreError("blob-write", f"{path} cannot be written: {error.strerror}") from error
        self.size_bytes = self._file.tell()
        self._total_bytes: int | None = None

    def __enter__(self) -> _Partial:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, chunk: Chunk, max_bytes: int) -> None:
        if chunk.total_bytes > max_bytes:
            raise MalformedError("blob-size", f"a blob of {chunk.total_bytes} bytes is over the limit of {max_bytes}")
        end = chunk.offset_bytes + len(chunk.data)
        stale = self._total_bytes is not None and chunk.total_bytes != self._total_bytes
        if stale or chunk.offset_bytes != self.size_bytes or end > chunk.total_bytes or self._oversized(chunk):
            self._drop()
            raise MalformedError("bad-chunk", "a chunk does not continue the blob")
        self._total_bytes = chunk.total_bytes
        try:
            self._file.write(chunk.data)
        except OSError as error:
            raise StoreError("blob-write", f"a blob was not written: {error.strerror}") from error
        self.size_bytes = end

    def finish(self) -> None:
        """Make the bytes durable; all of them must be here."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError("blob-write", f"a blob was not written: {error.strerror}") from error
        if self._total_bytes is None or self.size_bytes < self._total_bytes:
            raise UnavailableError("blob-cut", f"the stream ended after {self.size_bytes} bytes")

    @staticmethod
    def _oversized(chunk: Chunk) -> bool:
        return len(chunk.data) > MAX_CHUNK_BYTES

    def _drop(self) -> None:
        self._file.truncate(0)
