"""Content-addressed blobs over a stream of chunks: resumed where they were cut off, believed only by their digest.

Invariants:
    * A file stands under its name only when its bytes have the digest that was asked for, and it is on the disk.
    * What arrived before a cut is kept beside the target and not fetched again; bytes that turn out wrong are dropped
      whole, so that the next attempt starts clean.
    * Sizes are checked before anything is written, every chunk brings bytes, and the next one comes in time.

Source: DESIGN section 3 (blobs are content-addressed files); contracts of `GetBlob` in `protos/bedside/proto/v1`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, Protocol

import blake3

from bedside.core.errors import MalformedError, StoreError, TrustError, UnavailableError
from bedside.core.limits import MAX_BLOB_BYTES, MAX_CHUNK_BYTES
from bedside.proto.v1.common_pb2 import BlobRequest, Chunk
from bedside.service.files import PRIVATE_MODE, sync_directory

DigestKind = Literal["blake2b", "blake3"]
"""BLAKE2b-256 names manifests, checkpoints and tars; BLAKE3 names uploads and sums."""

GetBlob = Callable[[BlobRequest], AsyncIterable[Chunk]]
"""A stub's `GetBlob`, bound to its deadline."""

PARTIAL_SUFFIX: Final = ".part"

STALL_S: Final = 60.0
"""Seconds that a stream may be silent: more than keepalive takes to notice a dead peer."""

DIGEST_BYTES: Final = 32
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
    stall_s: float = STALL_S,
) -> Path:
    """Bring the blob `digest` to `target`, going on after what an earlier attempt left; returns `target`.

    A target that exists is read again: bytes that rotted on the disk are dropped and fetched anew.

    Args:
        get_blob: opens the stream at an offset.
        digest: 32 bytes; the blob's name and the only reason to believe its bytes.
        target: where the whole blob is to stand; its directory exists.
        max_bytes: refuses larger blobs before a byte is written.
        kind: which hash `digest` is.
        stall_s: seconds that the stream may be silent.

    Raises:
        TrustError: `blob-digest`: the bytes are not the blob; nothing of them is kept.
        MalformedError: `bad-digest`, `bad-chunk`, or `blob-size` above `max_bytes`.
        UnavailableError: `blob-cut` or `blob-stalled`: the stream ended early; call again.
        StoreError: `blob-write`.
    """
    if len(digest) != DIGEST_BYTES:
        raise MalformedError("bad-digest", f"a blob is named by {DIGEST_BYTES} bytes, not by {len(digest)}")
    if await asyncio.to_thread(_holds, target, digest, kind):
        return target
    partial = target.with_name(f".{target.name}{PARTIAL_SUFFIX}")
    with _Partial(partial) as part:
        async for chunk in _in_time(get_blob(BlobRequest(digest=digest, offset_bytes=part.size_bytes)), stall_s):
            part.append(chunk, max_bytes)
        part.finish()
    if not await asyncio.to_thread(_holds, partial, digest, kind):
        raise TrustError(
            "blob-digest",
            f"the bytes of blob {digest.hex()[:12]} do not have its digest",
            remedy="fetch it again; if that repeats, something between here and the sender alters data",
        )
    with _writing(target):
        partial.replace(target)
        sync_directory(target.parent)
    return target


def _holds(path: Path, digest: bytes, kind: DigestKind) -> bool:
    """Whether the file at `path` is the blob; one that is not is removed."""
    try:
        if file_digest(path, kind) == digest:
            return True
    except FileNotFoundError:
        return False
    except OSError:
        pass  # bytes that the disk does not give back are no better than wrong ones
    with _writing(path):
        path.unlink()
    return False


async def _in_time(chunks: AsyncIterable[Chunk], stall_s: float) -> AsyncIterator[Chunk]:
    """The chunks, as long as none of them takes longer than `stall_s`."""
    stream = aiter(chunks)
    while True:
        try:
            async with asyncio.timeout(stall_s):
                chunk = await anext(stream, None)
        except TimeoutError as error:
            raise UnavailableError("blob-stalled", f"no part of a blob came for {stall_s:g} s") from error
        if chunk is None:
            return
        yield chunk


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name failures of the disk. Raises StoreError `blob-write`."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            "blob-write", f"{path.name} was not written: {error.strerror or error}", remedy="check free space"
        ) from error


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
        self._path = path
        with _writing(path):
            path.touch(PRIVATE_MODE)
            self._file = path.open("ab")
        self.size_bytes = self._file.tell()
        self._total_bytes: int | None = None

    def __enter__(self) -> _Partial:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            with _writing(self._path):
                self._file.close()  # tries once more to write what was not
        except StoreError:
            if kind is None:
                raise

    def append(self, chunk: Chunk, max_bytes: int) -> None:
        if chunk.total_bytes > max_bytes:
            raise MalformedError("blob-size", f"a blob of {chunk.total_bytes} bytes is over the limit of {max_bytes}")
        end = chunk.offset_bytes + len(chunk.data)
        stale = self._total_bytes is not None and chunk.total_bytes != self._total_bytes
        idle = not chunk.data and (chunk.offset_bytes < chunk.total_bytes or self._total_bytes is not None)
        if stale or idle or chunk.offset_bytes != self.size_bytes or end > chunk.total_bytes or self._oversized(chunk):
            self._drop()
            raise MalformedError("bad-chunk", "a chunk does not continue the blob")
        self._total_bytes = chunk.total_bytes
        with _writing(self._path):
            self._file.write(chunk.data)
        self.size_bytes = end

    def finish(self) -> None:
        """Make the bytes durable; all of them must be here."""
        with _writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        if self._total_bytes is None or self.size_bytes < self._total_bytes:
            raise UnavailableError("blob-cut", f"the stream ended after {self.size_bytes} bytes")

    @staticmethod
    def _oversized(chunk: Chunk) -> bool:
        return len(chunk.data) > MAX_CHUNK_BYTES

    def _drop(self) -> None:
        with _writing(self._path):
            self._file.truncate(0)
