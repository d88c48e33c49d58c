"""Blobs as a stream of chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from bedside.coordinator.blobs.files import BlobStore, Family
from bedside.core.errors import MalformedError, StoreError
from bedside.proto.v1.common_pb2 import BlobRequest, Chunk


async def stream_blob(
    blobs: BlobStore, request: BlobRequest, *, families: tuple[Family, ...] = ("blake2b", "blake3")
) -> AsyncIterator[Chunk]:
    """Send the blob that `request` names, from its offset on; reads happen off the event loop.

    Args:
        blobs: where it is.
        request: digest and offset.
        families: those that the caller may read: masked uploads and sums are not for devices.

    Raises:
        StoreError: `no-blob`.
        MalformedError: `bad-offset`.
    """
    family = next((one for one in families if blobs.has(request.digest, one)), None)
    if family is None:
        raise StoreError("no-blob", "there is no such blob here", remedy="ask again with the current plan")
    total = blobs.size(request.digest, family)
    if request.offset_bytes > total:
        raise MalformedError("bad-offset", f"the blob has {total} bytes")
    at = request.offset_bytes
    pieces = blobs.chunks(request.digest, family, offset_bytes=at)
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield Chunk(offset_bytes=at, data=piece, total_bytes=total)
        at += len(piece)
    if at == request.offset_bytes:
        yield Chunk(offset_bytes=at, total_bytes=total)
