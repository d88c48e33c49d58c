"""A bundle on the wire: one uncompressed tar of fixed order, owner, mode and time: equal files, equal bytes.

The reader takes what the writer writes and nothing else: names from a fixed list in a fixed order, plain
files, sizes checked against the bytes at hand before anything is copied. No path from it reaches a disk.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from bedside.core.bundle.bounds import MAX_BUNDLE_FILE_BYTES, MAX_GRAPHS, MAX_MANIFEST_BYTES, SIGNATURE_BYTES
from bedside.core.bundle.manifest import COMMITTED, MANIFEST, OPTIONAL, SIGNATURE
from bedside.core.bundle.training import GRAPH_PREFIX, GRAPH_SUFFIX
from bedside.core.errors import MalformedError
from bedside.core.ustar import BLOCK_BYTES, END, NAME_BYTES, header, padding, size_of

MANIFEST_HEAD_BYTES: Final = BLOCK_BYTES + MAX_MANIFEST_BYTES
"""Bytes of a tar in which the whole manifest lies: it is the first file."""

HEAD: Final = (MANIFEST, SIGNATURE)
"""The first files of every bundle; training graphs follow, then those of `COMMITTED`, then perhaps of `OPTIONAL`."""

_GRAPH_NAME: Final = re.compile(
    rf"{GRAPH_PREFIX}[a-z0-9]{{1,8}}-[a-z0-9]{{1,16}}-[a-z0-9]{{1,16}}{re.escape(GRAPH_SUFFIX)}"
)

_FIXED: Final = frozenset((*HEAD, *COMMITTED, *OPTIONAL))
_MAX_MEMBERS: Final = len(_FIXED) + MAX_GRAPHS
_LIMITS: Final = {
    MANIFEST: MAX_MANIFEST_BYTES,
    SIGNATURE: SIGNATURE_BYTES,
}


def pack_bundle(files: Mapping[str, bytes]) -> bytes:
    """Return the tar of `files`, which must be the members of a bundle, with or without optional ones.

    Raises:
        ValueError: a file is missing or unknown.
    """
    names = members_of(files)
    if names is None or len(names) != len(files):
        raise ValueError(
            f"a bundle has exactly the files {', '.join((*HEAD, *COMMITTED))}, 1 to {MAX_GRAPHS} training graphs,"
            f" and perhaps {', '.join(OPTIONAL)}"
        )
    parts = []
    for name in names:
        parts += [header(name, len(files[name])), files[name], bytes(padding(len(files[name])))]
    return b"".join([*parts, END])


def is_graph(name: str) -> bool:
    """Whether a file's name is that of a training graph."""
    return _GRAPH_NAME.fullmatch(name) is not None


def members_of(names: Collection[str]) -> tuple[str, ...] | None:
    """The files of a bundle that are among `names`, in their order; None when it would be no bundle."""
    graphs = sorted(filter(is_graph, names))
    fixed = (*HEAD, *COMMITTED)
    if not set(fixed) <= set(names) or not 1 <= len(graphs) <= MAX_GRAPHS:
        return None
    return (*HEAD, *graphs, *COMMITTED, *(name for name in OPTIONAL if name in names))


def unpack_bundle(data: bytes) -> dict[str, bytes]:
    """Read a tar written by `pack_bundle`.

    Raises:
        MalformedError: `bad-archive`.
    """
    if not data.startswith(MANIFEST.encode() + b"\0"):
        sentence = "this is no model bundle"
        raise MalformedError("bad-archive", sentence, remedy="name the folder or tar that `bedside model build` wrote")
    files: dict[str, bytes] = {}
    position = 0
    while data[position:] != END:
        block = data[position : position + BLOCK_BYTES]
        name, size = _name_of(block), size_of(block)
        if len(files) == _MAX_MEMBERS or name in files:
            raise _bad(f"the entry at byte {position} is one too many")
        if size > _LIMITS.get(name, MAX_BUNDLE_FILE_BYTES) or block != header(name, size):
            raise _bad(f"the entry at byte {position} is not a file as a bundle has it")
        position += BLOCK_BYTES
        end = position + size
        padded = end + padding(size)
        if padded > len(data) or any(data[end:padded]):
            raise _bad(f"{name} does not fit its entry")
        files[name] = data[position:end]
        position = padded
    if tuple(files) != members_of(files):
        raise _bad("the files are not those of a bundle, in their order")
    return files


def _name_of(block: bytes) -> str:
    """The name that a header has, if a member of a bundle can have it."""
    name = block[:NAME_BYTES].rstrip(b"\0").decode("ascii", "replace")
    if name not in _FIXED and not is_graph(name):
        raise _bad("an entry has a name that no file of a bundle has")
    return name


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
