"""A round as one file for another machine: a deterministic tar of its record and its blobs.

The first entry is the record; then each blob that the audit reads, in the order of first need, named by its digest.
The reader takes what the writer makes and nothing else. It reads headers and padding only, so that an index of a
file of any size costs little; no name from it reaches a disk, and what the blobs hold is checked by the audit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from bedside.core.audit.record import MAX_BLOBS, MAX_RECORD_BYTES, BlobName, blob_limit
from bedside.core.errors import MalformedError
from bedside.core.ustar import BLOCK_BYTES, END, NAME_BYTES, header, padding, size_of

RECORD_NAME: Final = "round-record"
_BLOB: Final = re.compile(r"(blake2b|blake3)/([0-9a-f]{64})", re.ASCII)

ReadAt = Callable[[int, int], bytes]
"""Reads up to so many bytes from an offset of the file."""


class Span(NamedTuple):
    """Where the bytes of an entry are."""

    offset: int
    size_bytes: int


class Index(NamedTuple):
    """What is in an archive."""

    record: Span
    blobs: Mapping[BlobName, Span]


def member_name(name: BlobName) -> str:
    """The name of a blob's entry."""
    return f"{name.family}/{name.digest.hex()}"


def packed(name: str, data: bytes) -> Iterator[bytes]:
    """The pieces of one entry."""
    yield header(name, len(data))
    yield data
    yield bytes(padding(len(data)))


def index_archive(read_at: ReadAt, total_bytes: int) -> Index:
    """Find the entries of an archive of `total_bytes`.

    Raises:
        MalformedError: `bad-archive`.
    """
    record, position = _entry(read_at, 0, total_bytes, RECORD_NAME, MAX_RECORD_BYTES)
    blobs: dict[BlobName, Span] = {}
    while (block := read_at(position, BLOCK_BYTES)) != END[:BLOCK_BYTES]:
        name = _blob_name(block)
        if name in blobs or len(blobs) >= MAX_BLOBS:
            raise _bad("a blob stands twice in it, or there are too many")
        blobs[name], position = _entry(read_at, position, total_bytes, member_name(name), blob_limit(name))
    if position + len(END) != total_bytes or read_at(position, len(END)) != END:
        raise _bad("something follows the last entry")
    return Index(record, blobs)


def _entry(read_at: ReadAt, position: int, total_bytes: int, name: str, limit_bytes: int) -> tuple[Span, int]:
    block = read_at(position, BLOCK_BYTES)
    size = size_of(block)
    if size > limit_bytes or block != header(name, size):
        raise _bad(f"the entry at byte {position} is not {name[:NAME_BYTES]} as an export has it")
    start = position + BLOCK_BYTES
    end = start + size
    after = end + padding(size)
    if after > total_bytes or read_at(end, after - end) != bytes(after - end):
        raise _bad(f"{name} does not fit its entry")
    return Span(start, size), after


def _blob_name(block: bytes) -> BlobName:
    text = block[:NAME_BYTES].rstrip(b"\0").decode("ascii", "replace")
    match = _BLOB.fullmatch(text)
    if match is None:
        raise _bad("an entry is not named as a blob")
    return BlobName("blake2b" if match[1] == "blake2b" else "blake3", bytes.fromhex(match[2]))


def _bad(sentence: str) -> MalformedError:
    return MalformedError("bad-archive", f"this is not an exported round: {sentence}", remedy="export it again")
