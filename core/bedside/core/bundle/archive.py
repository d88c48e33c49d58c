"""A bundle on the wire: one uncompressed tar of fixed order, owner, mode and time: equal files, equal bytes.

The reader takes what the writer writes and nothing else: names from a fixed list in a fixed order, plain
files, sizes checked against the bytes at hand before anything is copied. No path from it reaches a disk.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

from bedside.core.bundle.bounds import MAX_BUNDLE_FILE_BYTES, MAX_MANIFEST_BYTES, SIGNATURE_BYTES
from bedside.core.bundle.manifest import COMMITTED, MANIFEST, OPTIONAL, SIGNATURE
from bedside.core.errors import MalformedError
from bedside.core.ustar import BLOCK_BYTES, END, header, padding, size_of

MANIFEST_HEAD_BYTES: Final = BLOCK_BYTES + MAX_MANIFEST_BYTES
"""Bytes of a tar in which the whole manifest lies: it is the first file."""

MEMBERS: Final = (MANIFEST, SIGNATURE, *COMMITTED)
"""The files of every bundle, in their order; those of `OPTIONAL` may follow."""

_LIMITS: Final = {
    MANIFEST: MAX_MANIFEST_BYTES,
    SIGNATURE: SIGNATURE_BYTES,
}


def pack_bundle(files: Mapping[str, bytes]) -> bytes:
    """Return the tar of `files`, which must be the members of a bundle, with or without optional ones.

    Raises:
        ValueError: a file is missing or unknown.
    """
    if set(files) - set(OPTIONAL) != set(MEMBERS):
        raise ValueError(f"a bundle has exactly the files {', '.join(MEMBERS)}, and perhaps {', '.join(OPTIONAL)}")
    parts = []
    for name in members_of(files):
        parts += [header(name, len(files[name])), files[name], bytes(padding(len(files[name])))]
    return b"".join([*parts, END])


def members_of(names: Container[str]) -> tuple[str, ...]:
    """The files of a bundle that has `names`, in their order."""
    return (*MEMBERS, *(name for name in OPTIONAL if name in names))


def unpack_bundle(data: bytes) -> dict[str, bytes]:
    """Read a tar written by `pack_bundle`.

    Raises:
        MalformedError: `bad-archive`.
    """
    if not data.startswith(MEMBERS[0].encode() + b"\0"):
        sentence = "this is no model bundle"
        raise MalformedError("bad-archive", sentence, remedy="name the folder or tar that `bedside model build` wrote")
    files: dict[str, bytes] = {}
    position = 0
    for name in (*MEMBERS, *OPTIONAL):
        if name in OPTIONAL and data[position:] == END:
            break
        block = data[position : position + BLOCK_BYTES]
        size = size_of(block)
        if size > _LIMITS.get(name, MAX_BUNDLE_FILE_BYTES) or block != header(name, size):
            raise _bad(f"the entry at byte {position} is not {name} as a bundle has it")
        position += BLOCK_BYTES
        end = position + size
        padded = end + padding(size)
        if padded > len(data) or any(data[end:padded]):
            raise _bad(f"{name} does not fit its entry")
        files[name] = data[position:end]
        position = padded
    if data[position:] != END:
        raise _bad("something follows the last file")
    return files


def manifest_in(data: bytes) -> bytes:
    """The manifest's bytes in a tar, or in its first `MANIFEST_HEAD_BYTES`; nothing else of it need be sound.

    Raises:
        MalformedError: `bad-archive`.
    """
    block = data[:BLOCK_BYTES]
    size = size_of(block)
    if size > MAX_MANIFEST_BYTES or block != header(MANIFEST, size) or BLOCK_BYTES + size > len(data):
        raise _bad("it does not begin with a manifest")
    return data[BLOCK_BYTES : BLOCK_BYTES + size]


def _bad(sentence: str) -> MalformedError:
    return MalformedError("bad-archive", sentence, remedy="fetch the bundle again")
