"""Where the audit commands read a round from: a running coordinator, or an exported file."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from bedside.core.audit.archive import RECORD_NAME, Index, index_archive, member_name, packed
from bedside.core.audit.record import MAX_RECORD_BYTES, BlobName, ReadBlob, blobs_of, read_record
from bedside.core.errors import ConfigError, MalformedError, StoreError
from bedside.core.limits import MAX_BLOB_BYTES
from bedside.core.ustar import END
from bedside.proto.v1.audit_pb2 import RoundRecord, RoundRecordRequest
from bedside.proto.v1.common_pb2 import BlobRequest, Chunk
from bedside.service.files import sync_directory
from bedside.service.link.errors import remote_errors

if TYPE_CHECKING:
    from bedside.proto.v1.operator_pb2_grpc import OperatorServiceAsyncStub


_ROUND: Final = re.compile(r"(?P<task>[a-z0-9.-]+)(?:/(?P<number>\d{0,18}))?", re.ASCII)


def round_request(named: str) -> RoundRecordRequest:
    """Read `TASK`, `TASK/ROUND` or the 64 hexadecimal digits of a plan's digest.

    Raises:
        ConfigError: `bad-round`.
    """
    if len(named) == 64 and all(char in "0123456789abcdef" for char in named):
        return RoundRecordRequest(plan_digest=bytes.fromhex(named))
    match = _ROUND.fullmatch(named)
    if match is None:
        raise ConfigError("bad-round", f"{named[:80]!r} names no round", remedy="TASK/ROUND, or a plan's digest")
    return RoundRecordRequest(task=match["task"], round_number=int(match["number"] or 0))


async def fetch_record(stub: OperatorServiceAsyncStub, request: RoundRecordRequest) -> tuple[RoundRecord, bytes]:
    """The record of a finished round, and its bytes."""
    data = await gathered(stub.GetRoundRecord(request), MAX_RECORD_BYTES)
    return read_record(data), data


def socket_reader(stub: OperatorServiceAsyncStub) -> ReadBlob:
    """Reads blobs from a coordinator; for a thread beside the event loop that calls it."""
    loop = asyncio.get_running_loop()

    async def fetch(name: BlobName) -> bytes:
        with remote_errors("the coordinator"):
            return await gathered(stub.GetBlob(BlobRequest(digest=name.digest)), MAX_BLOB_BYTES)

    def read(name: BlobName) -> bytes:
        return asyncio.run_coroutine_threadsafe(fetch(name), loop).result()

    return read


def write_archive(target: Path, record: RoundRecord, data: bytes, read: ReadBlob) -> int:
    """Write a round beside `target` and give it that name when it is whole; returns its bytes.

    Raises:
        StoreError: `export-write`, or from the reader.
    """
    partial = target.with_name(f".{target.name}.part")
    try:
        with partial.open("wb") as file:
            file.writelines(packed(RECORD_NAME, data))
            for name in blobs_of(record, read):
                file.writelines(packed(member_name(name), read(name)))
            file.write(END)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        sync_directory(target.parent)
    except OSError as error:
        raise StoreError("export-write", f"{target} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return size


@contextmanager
def opened_archive(path: Path) -> Iterator[tuple[RoundRecord, ReadBlob]]:
    """Read an exported round, a blob at a time.

    Raises:
        MalformedError: `bad-archive` or `bad-message`.
        StoreError: `archive-read`.
    """
    try:
        with path.open("rb") as file:
            total = os.fstat(file.fileno()).st_size
            index = index_archive(lambda offset, count: _read_at(file, offset, count), total)
            yield read_record(_read_at(file, *index.record)), _archive_reader(file, index)
    except OSError as error:
        raise StoreError("archive-read", f"{path} cannot be read: {error.strerror}") from error


def _archive_reader(file: BinaryIO, index: Index) -> ReadBlob:
    def read(name: BlobName) -> bytes:
        span = index.blobs.get(name)
        if span is None:
            raise StoreError("no-blob", f"the export has no blob {name.digest.hex()[:16]}")
        return _read_at(file, *span)

    return read


def _read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


async def gathered(chunks: AsyncIterable[Chunk], limit_bytes: int) -> bytes:
    """The bytes of a stream of chunks.

    Raises:
        MalformedError: `bad-chunk`.
    """
    data = bytearray()
    async for chunk in chunks:
        if chunk.offset_bytes != len(data) or len(data) + len(chunk.data) > limit_bytes:
            raise MalformedError("bad-chunk", "a chunk does not continue what was asked for")
        data += chunk.data
    return bytes(data)
