"""The block rotation: orthonormal, invertible, the same bits everywhere, and spreading."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.codec.rotation import (
    FloatArray,
    Signs,
    _butterflies,
    block_shape,
    rotate_blocks,
    unrotate,
)

SEED = bytes(range(32))
BLOCKS = [2, 4, 8, 64, 512, 1_024, 4_096]


def rotate(flat: FloatArray, block: int) -> FloatArray:
    """The device's rotation in one group, in the order of DESIGN: runs, signs, matrix."""
    rows, columns = block_shape(block)
    blocks = np.ascontiguousarray(flat.reshape(rows, -1, columns).transpose(1, 0, 2))
    blocks *= Signs(SEED, 0).next(blocks.size).reshape(blocks.shape)
    rotate_blocks(blocks, np.empty_like(blocks))
    return blocks.reshape(-1)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("count", [1, 3, 16])
def test_unrotating_a_rotated_segment_restores_it(block: int, count: int) -> None:
    flat = np.random.default_rng(block).standard_normal(block * count).astype(np.float32)
    rotated = rotate(flat, block)
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(flat), rel=1e-5)
    np.testing.assert_allclose(unrotate(rotated, block, Signs(SEED, 0)), flat, atol=2e-5)


def test_unrotating_more_words_than_one_group_holds_takes_the_signs_in_order() -> None:
    flat = np.random.default_rng(3).standard_normal(40 * 4_096).astype(np.float32)
    np.testing.assert_allclose(unrotate(rotate_long(flat), 4_096, Signs(SEED, 0)), flat, atol=2e-5)


def rotate_long(flat: FloatArray) -> FloatArray:
    rows, columns = block_shape(4_096)
    blocks = np.ascontiguousarray(flat.reshape(rows, -1, columns).transpose(1, 0, 2))
    signs = Signs(SEED, 0)
    for start in range(0, len(blocks), 16):
        part = blocks[start : start + 16]
        part *= signs.next(part.size).reshape(part.shape)
    rotate_blocks(blocks, np.empty_like(blocks))
    return blocks.reshape(-1)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 16, 128, 4_096]))
def test_butterflies_give_the_same_bits_as_a_float32_reference(seed: int, block: int) -> None:
    lanes = np.random.default_rng(seed).standard_normal((block, 3)).astype(np.float32)
    expected = lanes.copy()
    half = 1
    while half < block:
        for low in range(0, block, 2 * half):
            upper, lower = expected[low : low + half].copy(), expected[low + half : low + 2 * half].copy()
            expected[low : low + half] = upper + lower
            expected[low + half : low + 2 * half] = upper - lower
        half *= 2
    _butterflies(lanes)
    assert lanes.tobytes() == expected.tobytes()


def test_the_opening_of_fixed_words_has_fixed_bits() -> None:
    steps = ((np.arange(5 * 4_096, dtype=np.uint32) * np.uint32(2_654_435_761) >> 20) & 0x3FF).astype(np.float32)
    opened = unrotate(steps * np.float32(0.001), 4_096, Signs(SEED, 7))
    digest = hashlib.blake2b(opened.astype("<f4").tobytes(), digest_size=16).hexdigest()
    assert digest == "17bdbc46a822b532f217cfd62fd98faa"


def test_one_large_value_spreads_over_its_whole_block() -> None:
    flat = np.zeros(3 * 1_024, np.float32)
    flat[100] = 32.0
    sizes = np.abs(rotate(flat, 1_024))
    assert np.count_nonzero(sizes) == 1_024
    np.testing.assert_allclose(sizes[sizes > 0], 1.0, rtol=1e-6)


def test_a_loud_layer_meets_every_block() -> None:
    flat = np.zeros(64 * 4_096, np.float32)
    flat[: 16 * 4_096] = 1.0
    norms = np.linalg.norm(rotate_long(flat).reshape(64, 4_096), axis=1)
    np.testing.assert_allclose(norms, norms.mean(), rtol=1e-5)


def test_segments_and_seeds_have_signs_of_their_own() -> None:
    first, again = Signs(SEED, 0).next(4_096), Signs(SEED, 0).next(4_096)
    np.testing.assert_array_equal(first, again)
    assert set(first.tolist()) == {1.0, -1.0}
    assert abs(float(first.sum())) < 400
    for other in (Signs(SEED, 1), Signs(bytes(32), 0)):
        assert abs(float((other.next(4_096) * first).sum())) < 400


def test_a_seed_of_another_length_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Signs(b"short", 0)
