"""Send a committed contribution: the same header and the same bytes, from wherever the other side stands.

Source: DESIGN section 5, step 3 (one upload), promise 6 (nothing is counted twice).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Protocol

from blake3 import blake3

from bedside.core.errors import ProtocolError, StoreError, UnavailableError
from bedside.core.limits import MAX_CHUNK_BYTES
from bedside.core.signing import digest, parse_strict
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import UploadChunk, UploadState
from bedside.proto.v1.round_pb2 import Header

UPLOAD_CHUNK_BYTES: Final = MAX_CHUNK_BYTES // 4
"""Bytes of one chunk: a quarter of the limit keeps the process small and a cut cheap."""


class UploadLink(Protocol):
    """The two calls of an upload."""

    async def begin_upload(self, header: Signed) -> UploadState:
        """Announce a header; answers with how many of its bytes are durable there."""

    async def upload(self, chunks: AsyncIterator[UploadChunk]) -> UploadState:
        """Send chunks; answers once they are durable."""


async def send_upload(link: UploadLink, header: Signed, path: Path, size_bytes: int) -> None:
    """Bring all bytes of `path` to the coordinator and return when it has accepted them.

    Raises:
        UnavailableError: the link broke; call again, at any later time.
        ProtocolError, RefusedError, TrustError: the coordinator will never take it.
        StoreError: `upload-missing`: the file is gone.
    """
    state = await link.begin_upload(header)
    if state.accepted:
        return
    if state.received_bytes > size_bytes:
        raise ProtocolError("upload-offset", "the coordinator claims more bytes than there are")
    state = await link.upload(_chunks(digest(header.payload), path, state.received_bytes, size_bytes))
    if not state.accepted:
        raise UnavailableError("upload-cut", f"the coordinator has {state.received_bytes} of {size_bytes} bytes")


async def upload_holds(path: Path, header: Signed) -> bool:
    """Whether the bytes on this disk are still those that the header was signed over."""
    return await asyncio.to_thread(_holds, path, parse_strict(Header, header.payload).upload_digest)


def _holds(path: Path, wanted: bytes) -> bool:
    hasher = blake3()
    try:
        with path.open("rb") as file:
            while data := file.read(UPLOAD_CHUNK_BYTES):
                hasher.update(data)
    except OSError:
        return False
    return hasher.digest() == wanted


async def _chunks(header_digest: bytes, path: Path, offset_bytes: int, size_bytes: int) -> AsyncIterator[UploadChunk]:
    """The file from `offset_bytes` on; the first chunk names the header, and comes even when nothing is left."""
    try:
        with path.open("rb") as file:
            file.seek(offset_bytes)
            at, first = offset_bytes, True
            while at < size_bytes or first:
                data = file.read(min(UPLOAD_CHUNK_BYTES, size_bytes - at))
                if not data and at < size_bytes:
                    raise StoreError("upload-missing", f"{path.name} is shorter than its header says")
                yield UploadChunk(header_digest=header_digest if first else b"", offset_bytes=at, data=data)
                at, first = at + len(data), False
    except OSError as error:
        raise StoreError("upload-missing", f"{path.name} cannot be read: {error.strerror}") from error
