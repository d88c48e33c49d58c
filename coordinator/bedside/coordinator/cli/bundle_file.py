"""A bundle on its way from the operator's machine to the coordinator."""

from __future__ import annotations

from collections.abc import Iterator

from bedside.core.bundle.archive import unpack_bundle
from bedside.core.bundle.manifest import MANIFEST, Manifest, decode_manifest
from bedside.core.limits import MAX_CHUNK_BYTES
from bedside.proto.v1.common_pb2 import Chunk


def manifest_of(data: bytes) -> Manifest:
    """The manifest of a bundle, unverified: for the author's recommended hyper-parameters."""
    return decode_manifest(unpack_bundle(data)[MANIFEST])


def send_chunks(data: bytes) -> Iterator[Chunk]:
    """The tar as a stream of chunks."""
    for at in range(0, len(data), MAX_CHUNK_BYTES):
        yield Chunk(offset_bytes=at, data=data[at : at + MAX_CHUNK_BYTES], total_bytes=len(data))
