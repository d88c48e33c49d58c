"""A bundle on the operator's machine: a tar, or a folder with its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bedside.core.bundle.archive import MEMBERS, pack_bundle, unpack_bundle
from bedside.core.bundle.manifest import MANIFEST, Manifest, decode_manifest
from bedside.core.errors import ConfigError
from bedside.core.limits import MAX_CHUNK_BYTES
from bedside.proto.v1.common_pb2 import Chunk


def read_bundle(path: Path) -> bytes:
    """Return the deterministic tar of a bundle.

    Raises:
        ConfigError: `no-bundle-file`.
    """
    try:
        if path.is_dir():
            return pack_bundle({name: (path / name).read_bytes() for name in MEMBERS})
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "no-bundle-file",
            f"{error.filename or path} cannot be read: {error.strerror}",
            remedy="name the folder or tar that `bedside model build` wrote",
        ) from error


def manifest_of(data: bytes) -> Manifest:
    """The manifest of a bundle, unverified: for the author's recommended hyper-parameters."""
    return decode_manifest(unpack_bundle(data)[MANIFEST])


def send_chunks(data: bytes) -> Iterator[Chunk]:
    """The tar as a stream of chunks."""
    for at in range(0, len(data), MAX_CHUNK_BYTES):
        yield Chunk(offset_bytes=at, data=data[at : at + MAX_CHUNK_BYTES], total_bytes=len(data))
