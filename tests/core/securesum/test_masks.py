"""Mask expansion against published vectors, against libsodium, and by its own laws."""

from __future__ import annotations

import itertools

import nacl.utils
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.limits import MASK_CHUNK_BYTES
from bedside.core.securesum import masks
from bedside.core.securesum.masks import MaskExpander, apply_mask
from bedside.core.securesum.ring import word_dtype, word_mask

# RFC 8439, appendix A.1, vectors 1 and 2: the first two blocks under the zero key and nonce.
RFC_KEYSTREAM = bytes.fromhex(
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
    "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
)
KEY = bytes(range(32))


@pytest.mark.parametrize(("word_bits", "wire"), [(16, "<u2"), (32, "<u4"), (12, "<u2"), (20, "<u4")])
def test_the_zero_key_gives_the_keystream_of_rfc_8439(word_bits: int, wire: str) -> None:
    stream = np.frombuffer(RFC_KEYSTREAM, wire)
    words = np.zeros(stream.size, word_dtype(word_bits))
    apply_mask(words, bytes(32), word_bits, subtract=False)
    np.testing.assert_array_equal(words, stream & word_mask(word_bits))


@pytest.mark.parametrize("word_bits", [11, 16, 24, 32])
def test_many_chunks_equal_one_call_of_libsodium(monkeypatch: pytest.MonkeyPatch, word_bits: int) -> None:
    monkeypatch.setattr(masks, "_NONCE", b"LibsodiumDRG")
    dtype = word_dtype(word_bits)
    count = 3 * MASK_CHUNK_BYTES // dtype.itemsize + 17
    stream = np.frombuffer(nacl.utils.randombytes_deterministic(count * dtype.itemsize, KEY), dtype)
    words = np.full(count, 5, dtype)
    apply_mask(words, KEY, word_bits, subtract=False)
    np.testing.assert_array_equal(words, (stream + dtype.type(5)) & dtype.type(word_mask(word_bits)))


@settings(deadline=None)
@given(st.integers(8, 32), st.binary(min_size=32, max_size=32), st.integers(0, 300))
def test_a_mask_taken_away_again_leaves_the_vector(word_bits: int, key: bytes, count: int) -> None:
    original = (np.arange(count) * 2_654_435_761 & word_mask(word_bits)).astype(word_dtype(word_bits))
    words = original.copy()
    apply_mask(words, key, word_bits, subtract=False)
    assert count < 16 or not np.array_equal(words, original)
    assert not count or int(words.max()) <= word_mask(word_bits)
    apply_mask(words, key, word_bits, subtract=True)
    np.testing.assert_array_equal(words, original)


@settings(deadline=None)
@given(st.sampled_from([9, 16, 17, 32]), st.lists(st.integers(0, 400), max_size=4))
def test_masking_piece_by_piece_equals_masking_at_once(word_bits: int, cuts: list[int]) -> None:
    whole = np.zeros(400, word_dtype(word_bits))
    pieces = whole.copy()
    expander = MaskExpander()
    expander.apply(whole, KEY, word_bits, subtract=False)
    edges = [0, *sorted(cuts), 400]
    for start, end in itertools.pairwise(edges):
        expander.apply(pieces[start:end], KEY, word_bits, subtract=False, start_word=start)
    np.testing.assert_array_equal(pieces, whole)


def test_the_sum_of_masked_vectors_minus_the_sum_of_masks_is_the_sum() -> None:
    expander = MaskExpander()
    keys = [bytes([number]) * 32 for number in range(5)]
    total, mask_sum = np.zeros(1_000, np.uint16), np.zeros(1_000, np.uint16)
    for number, key in enumerate(keys):
        vector = np.full(1_000, 200 + number, np.uint16)
        expander.apply(vector, key, 14, subtract=False)
        total += vector
        expander.apply(mask_sum, key, 14, subtract=False)
    opened = (total - mask_sum) & np.uint16(word_mask(14))
    assert set(opened.tolist()) == {sum(range(200, 205))}


@pytest.mark.parametrize("word_bits", [8, 12, 16])
def test_masked_words_are_uniform(word_bits: int) -> None:
    words = np.zeros(1 << 16, np.uint16)
    apply_mask(words, KEY, word_bits, subtract=False)
    observed = np.bincount(words >> (word_bits - 8), minlength=256)
    chi_square = float(((observed - 256.0) ** 2 / 256.0).sum())
    assert observed.size == 256
    assert chi_square < 380  # 255 degrees of freedom: mean 255, deviation 22.6


def test_a_wrong_key_type_or_start_is_a_bug_of_the_caller() -> None:
    words = np.zeros(4, np.uint16)
    with pytest.raises(ValueError, match="32 bytes"):
        apply_mask(words, b"short", 16, subtract=False)
    with pytest.raises(ValueError, match="uint32"):
        apply_mask(words, KEY, 17, subtract=False)
    with pytest.raises(ValueError, match="no block"):
        MaskExpander().apply(words, KEY, 16, subtract=False, start_word=-1)
