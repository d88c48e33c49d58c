"""Sums that grow while uploads arrive are the sums of the sealed set, whatever came before."""

from __future__ import annotations

import itertools

import blake3
import numpy as np
import pytest

from bedside.coordinator.aggregation import running as module
from bedside.coordinator.aggregation.running import RunningSums
from bedside.coordinator.blobs import BlobStore
from bedside.core.errors import StoreError
from bedside.core.securesum.ring import pack


@pytest.fixture
def blobs(tmp_path) -> BlobStore:
    return BlobStore(tmp_path)


@pytest.fixture
def plan(world):
    return world.plan()


@pytest.fixture
def vectors(world, plan):
    return {bytes([number]) * 32: world.random_words(plan, number) for number in range(5)}


@pytest.fixture
def uploads(blobs, vectors):
    return {header: blobs.put(pack(words, 16), "blake3") for header, words in vectors.items()}


def total(vectors, headers):
    return np.sum([vectors[header] for header in headers], axis=0, dtype=np.uint16)


@pytest.mark.parametrize("arrived", [0, 2, 5])
@pytest.mark.parametrize("sealed", [3, 5])
def test_the_sum_is_that_of_the_sealed_set(blobs, plan, vectors, uploads, arrived, sealed) -> None:
    sums = RunningSums(blobs)
    for header, name in itertools.islice(uploads.items(), arrived):
        sums.add(plan, 0, header, name)
        sums.add(plan, 0, header, name)  # a repeated call
    wanted = dict(itertools.islice(reversed(uploads.items()), sealed))
    found = sums.take(plan, 0, wanted).opened(sealed, 0)
    np.testing.assert_array_equal(found, total(vectors, wanted))


def test_two_headers_with_the_same_bytes_count_twice(blobs, plan, vectors, uploads) -> None:
    (first, name), *_ = uploads.items()
    twin = b"t" * 32
    sums = RunningSums(blobs)
    sums.add(plan, 0, first, name)
    sums.add(plan, 0, twin, name)
    found = sums.take(plan, 0, {first: name, twin: name}).opened(2, 0)
    np.testing.assert_array_equal(found, vectors[first] * 2)


def test_where_memory_is_short_the_sum_is_made_from_the_blobs(blobs, plan, vectors, uploads, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_RUNNING_BYTES", 1)
    sums = RunningSums(blobs)
    for header, name in uploads.items():
        sums.add(plan, 0, header, name)
    np.testing.assert_array_equal(sums.take(plan, 0, uploads).opened(5, 0), total(vectors, uploads))


def test_a_sum_that_was_taken_or_forgotten_gives_its_room_back(blobs, plan, vectors, uploads, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_RUNNING_BYTES", plan.vector_words * 2)
    sums, (header, name) = RunningSums(blobs), next(iter(uploads.items()))
    for end in (lambda: sums.take(plan, 0, {}), lambda: sums.forget(plan, 0)):
        sums.add(plan, 0, header, name)
        assert sums.forget(plan, 1) is None
        end()
        sums.add(plan, 0, header, name)
        assert sums.forget(plan, 0).added == {header: name}


def test_a_vector_that_rotted_on_the_disk_is_found(blobs, plan, uploads) -> None:
    header, name = next(iter(uploads.items()))
    (path,) = blobs.root.rglob(name.hex())
    path.chmod(0o600)
    path.write_bytes(bytes(path.stat().st_size))
    sums = RunningSums(blobs)
    sums.add(plan, 0, header, name)
    with pytest.raises(StoreError) as caught:
        sums.take(plan, 0, {header: name})
    assert caught.value.code == "blob-damaged"
    assert blake3.blake3(path.read_bytes()).digest() != name
