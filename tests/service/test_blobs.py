"""Blobs: resumed, bounded, and believed by digest only."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import blake3
import pytest

from bedside.core.errors import MalformedError, StoreError, TrustError, UnavailableError
from bedside.proto.v1.common_pb2 import BlobRequest, Chunk
from bedside.service.link.blobs import fetch_blob, read_chunks

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.blake2b(CONTENT, digest_size=32).digest()


class Server:
    """Serves one file and remembers the offsets that were asked for; may cut the stream."""

    def __init__(self, path: Path, *, cut_after: int | None = None) -> None:
        self.path, self.cut_after = path, cut_after
        self.offsets: list[int] = []

    async def __call__(self, request: BlobRequest) -> AsyncIterator[Chunk]:
        self.offsets.append(request.offset_bytes)
        for count, chunk in enumerate(read_chunks(self.path, request.offset_bytes, chunk_bytes=1_000)):
            if count == self.cut_after:
                return
            yield chunk


@pytest.fixture
def served(tmp_path: Path) -> Path:
    path = tmp_path / "served"
    path.write_bytes(CONTENT)
    return path


async def test_a_blob_arrives_whole_under_its_name(served: Path, tmp_path: Path) -> None:
    target = await fetch_blob(Server(served), DIGEST, tmp_path / "blob")
    assert target.read_bytes() == CONTENT
    assert list(tmp_path.glob(".*")) == []


async def test_a_cut_stream_is_resumed_where_it_ended(served: Path, tmp_path: Path) -> None:
    server = Server(served, cut_after=3)
    with pytest.raises(UnavailableError, match="3000"):
        await fetch_blob(server, DIGEST, tmp_path / "blob")
    assert not (tmp_path / "blob").exists()
    server.cut_after = None
    await fetch_blob(server, DIGEST, tmp_path / "blob")
    assert server.offsets == [0, 3_000]
    assert (tmp_path / "blob").read_bytes() == CONTENT


async def test_wrong_bytes_never_get_the_name_and_are_not_kept(served: Path, tmp_path: Path) -> None:
    served.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(TrustError, match="digest"):
        await fetch_blob(Server(served), DIGEST, tmp_path / "blob")
    assert not (tmp_path / "blob").exists()
    served.write_bytes(CONTENT)
    await fetch_blob(Server(served), DIGEST, tmp_path / "blob")


async def test_a_blob_over_the_limit_is_refused_before_a_byte_is_kept(served: Path, tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="limit"):
        await fetch_blob(Server(served), DIGEST, tmp_path / "blob", max_bytes=len(CONTENT) - 1)
    assert sum(path.stat().st_size for path in tmp_path.glob(".*")) == 0


async def test_a_chunk_that_skips_bytes_is_refused(tmp_path: Path) -> None:
    async def skipping(_: BlobRequest) -> AsyncIterator[Chunk]:
        yield Chunk(offset_bytes=0, data=b"ab", total_bytes=10)
        yield Chunk(offset_bytes=4, data=b"ab", total_bytes=10)

    with pytest.raises(MalformedError, match="continue"):
        await fetch_blob(skipping, DIGEST, tmp_path / "blob")
    assert not (tmp_path / "blob").exists()


async def test_uploads_are_named_by_blake3(served: Path, tmp_path: Path) -> None:
    await fetch_blob(Server(served), blake3.blake3(CONTENT).digest(), tmp_path / "blob", kind="blake3")
    with pytest.raises(TrustError):
        await fetch_blob(Server(served), DIGEST, tmp_path / "other", kind="blake3")


async def test_an_empty_blob_arrives(served: Path, tmp_path: Path) -> None:
    served.write_bytes(b"")
    target = await fetch_blob(Server(served), hashlib.blake2b(digest_size=32).digest(), tmp_path / "blob")
    assert target.read_bytes() == b""


def test_an_offset_behind_the_end_is_malformed(served: Path) -> None:
    with pytest.raises(MalformedError, match="no byte"):
        list(read_chunks(served, len(CONTENT) + 1))


@pytest.mark.parametrize("name", [b"", b"t" * 31, b"t" * 200])
async def test_a_name_that_is_no_digest_is_malformed(served: Path, tmp_path: Path, name: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        await fetch_blob(Server(served), name, tmp_path / "blob")
    assert caught.value.code == "bad-digest"


async def test_a_file_that_rotted_under_its_name_is_fetched_anew(served: Path, tmp_path: Path) -> None:
    target, server = tmp_path / "blob", Server(served)
    target.write_bytes(CONTENT[:-1] + b"!")
    assert (await fetch_blob(server, DIGEST, target)).read_bytes() == CONTENT
    assert server.offsets == [0]
    await fetch_blob(server, DIGEST, target)
    assert server.offsets == [0], "a sound file is not fetched again"


async def test_chunks_that_bring_nothing_are_refused(tmp_path: Path) -> None:
    async def idle(_: BlobRequest) -> AsyncIterator[Chunk]:
        while True:
            yield Chunk(offset_bytes=0, total_bytes=100)

    async def idle_at_the_end(_: BlobRequest) -> AsyncIterator[Chunk]:
        while True:
            yield Chunk(offset_bytes=0, total_bytes=0)

    for get_blob in (idle, idle_at_the_end):
        with pytest.raises(MalformedError, match="continue"):
            await fetch_blob(get_blob, DIGEST, tmp_path / "blob")


async def test_a_stream_that_falls_silent_is_left_and_resumed_later(served: Path, tmp_path: Path) -> None:
    async def silent(_: BlobRequest) -> AsyncIterator[Chunk]:
        yield Chunk(offset_bytes=0, data=CONTENT[:1_000], total_bytes=len(CONTENT))
        await asyncio.Event().wait()

    with pytest.raises(UnavailableError) as caught:
        await fetch_blob(silent, DIGEST, tmp_path / "blob", stall_s=0.01)
    assert caught.value.code == "blob-stalled"
    server = Server(served)
    await fetch_blob(server, DIGEST, tmp_path / "blob")
    assert server.offsets == [1_000]


class FullDisk(io.BufferedWriter):
    """Takes bytes and never gets them to the disk, not at close either."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_full_disk_is_an_error_of_the_store_whenever_it_shows(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Path.open

    def full(path: Path, mode: str = "r") -> object:
        return FullDisk(io.FileIO(path, mode)) if "a" in mode else sound(path, mode)

    server = Server(served, cut_after=10)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StoreError) as caught:
        await fetch_blob(server, DIGEST, tmp_path / "blob")
    assert caught.value.code == "blob-write"

    async def broken(_: BlobRequest) -> AsyncIterator[Chunk]:
        yield Chunk(offset_bytes=0, data=b"few", total_bytes=len(CONTENT))
        raise UnavailableError("peer-unavailable", "the link broke before the bytes were written")

    with pytest.raises(UnavailableError, match="broke"):
        await fetch_blob(broken, DIGEST, tmp_path / "other")
