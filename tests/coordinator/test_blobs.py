"""Blobs: what is read is what was stored, or an error that says whether asking again may help."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bedside.coordinator.blobs import BlobStore, Staging
from bedside.coordinator.blobs.files import LOST_CODES
from bedside.core.errors import StoreError


@pytest.fixture
def blobs(tmp_path) -> BlobStore:
    return BlobStore(tmp_path)


def path_of(blobs: BlobStore, name: bytes) -> Path:
    (path,) = blobs.root.rglob(name.hex())
    return path


@pytest.mark.parametrize("family", ["blake2b", "blake3"])
def test_a_bit_that_flipped_on_the_disk_is_found_when_the_blob_is_read(blobs, family) -> None:
    name = blobs.put(b"a checkpoint", family)
    assert blobs.read(name, family) == b"a checkpoint"
    path_of(blobs, name).write_bytes(b"a chEckpoint")
    with pytest.raises(StoreError) as caught:
        blobs.read(name, family)
    assert caught.value.code == "blob-damaged"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EIO, "blob-damaged"), (errno.ENOENT, "no-blob"), (errno.EMFILE, "blob-read")]
)
def test_what_is_lost_is_told_from_what_another_try_may_read(blobs, monkeypatch, number, code) -> None:
    name = blobs.put(b"a checkpoint")

    def fail(*_: object) -> None:
        raise OSError(number, "as the system says")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(StoreError) as caught:
        blobs.read(name)
    assert caught.value.code == code
    assert (code in LOST_CODES) == (number != errno.EMFILE)


def test_a_full_disk_is_a_store_error_also_where_a_folder_is_made(blobs, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(StoreError) as caught:
        blobs.put(b"a checkpoint")
    assert caught.value.code == "blob-write"


def test_what_a_killed_process_was_receiving_is_cleared_away(blobs) -> None:
    staging = Staging(blobs)
    with staging.incoming() as words:
        words.write(b"half of")
        left = blobs.root / "staging" / "left.call"
        next((blobs.root / "staging").glob("*.call")).rename(left)
    assert left.exists()
    Staging(blobs)
    assert not left.exists()
