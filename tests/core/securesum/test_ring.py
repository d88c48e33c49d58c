"""Packing, head-room and the machine word of the ring."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.limits import MAX_VECTOR_WORDS
from bedside.core.securesum.ring import (
    Words,
    check_no_overflow,
    check_sum_fits,
    pack,
    packed_bytes,
    reduce_in_place,
    unpack,
    word_dtype,
    word_mask,
)

word_bits_of_a_ring = st.integers(8, 32)


@st.composite
def reduced_vectors(draw: st.DrawFn) -> tuple[Words, int]:
    word_bits = draw(word_bits_of_a_ring)
    values = draw(st.lists(st.integers(0, (1 << word_bits) - 1), max_size=40))
    return np.array(values, word_dtype(word_bits)), word_bits


@settings(deadline=None)
@given(reduced_vectors())
def test_packed_words_are_the_digits_of_one_large_little_endian_number(case: tuple[Words, int]) -> None:
    words, word_bits = case
    number = sum(int(word) << (word_bits * place) for place, word in enumerate(words))
    assert pack(words, word_bits) == number.to_bytes(packed_bytes(words.size, word_bits), "little")


@settings(deadline=None)
@given(reduced_vectors())
def test_unpacking_restores_what_was_packed(case: tuple[Words, int]) -> None:
    words, word_bits = case
    restored = unpack(pack(words, word_bits), words.size, word_bits)
    assert restored.dtype == word_dtype(word_bits)
    np.testing.assert_array_equal(restored, words)


@settings(deadline=None)
@given(st.binary(max_size=64), st.integers(-2, 70), st.integers(0, 40))
def test_garbage_raises_only_malformed_error_or_packs_back_to_the_same_bytes(
    data: bytes, count: int, word_bits: int
) -> None:
    try:
        words = unpack(data, count, word_bits)
    except MalformedError:
        return
    assert pack(np.array(words), word_bits) == data


@pytest.mark.parametrize(("extra", "word_bits"), [(-1, 16), (1, 16), (-1, 12), (1, 12), (-1, 32)])
def test_a_wrong_length_is_malformed(extra: int, word_bits: int) -> None:
    data = bytes(packed_bytes(9, word_bits) + extra)
    with pytest.raises(MalformedError) as caught:
        unpack(data, 9, word_bits)
    assert caught.value.code == "wrong-length"


def test_bits_after_the_last_word_must_be_zero_so_that_an_encoding_is_unique() -> None:
    data = bytearray(pack(np.array([1, 2, 3], np.uint16), 9))
    data[-1] |= 0x80
    with pytest.raises(MalformedError) as caught:
        unpack(data, 3, 9)
    assert caught.value.code == "padding-not-zero"


def test_a_count_above_the_limit_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(MalformedError) as caught:
        unpack(b"", MAX_VECTOR_WORDS + 1, 16)
    assert caught.value.code == "too-many-words"


@pytest.mark.parametrize("word_bits", [-1, 0, 7, 33])
def test_a_ring_outside_8_to_32_bits_is_refused(word_bits: int) -> None:
    with pytest.raises(MalformedError) as caught:
        word_dtype(word_bits)
    assert caught.value.code == "bad-word-bits"


def test_sixteen_bits_unpack_without_a_copy_and_read_only() -> None:
    data = pack(np.arange(100, dtype=np.uint16), 16)
    view = unpack(data, 100, 16)
    assert np.shares_memory(view, np.frombuffer(data, np.uint16))
    assert not view.flags.writeable


def test_words_that_are_not_reduced_or_of_another_type_are_not_packed() -> None:
    with pytest.raises(ValueError, match="not reduced"):
        pack(np.array([1 << 12], np.uint16), 12)
    with pytest.raises(ValueError, match="expected a vector of uint16"):
        pack(np.array([1], np.uint32), 12)


@settings(deadline=None)
@given(st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=20), word_bits_of_a_ring)
def test_reducing_keeps_the_residue(values: list[int], word_bits: int) -> None:
    words = np.array(values, np.uint64).astype(word_dtype(word_bits))
    expected = [int(word) % (1 << word_bits) for word in words]
    reduce_in_place(words, word_bits)
    assert words.tolist() == expected
    assert max(expected) <= word_mask(word_bits)


@settings(deadline=None)
@given(st.integers(1, 10_000), st.integers(2, 8), word_bits_of_a_ring, st.integers(0, 1 << 20))
def test_the_overflow_rule_is_exact(contributors: int, bits: int, word_bits: int, tail: int) -> None:
    fits = contributors * ((1 << bits) - 1) + tail < 1 << word_bits
    if fits:
        check_no_overflow(contributors, bits, word_bits, tail)
        return
    with pytest.raises(ProtocolError) as caught:
        check_no_overflow(contributors, bits, word_bits, tail)
    assert caught.value.code == "ring-overflow"


def test_257_devices_of_8_bits_fit_in_16_and_one_more_does_not() -> None:
    check_no_overflow(257, 8, 16)
    with pytest.raises(ProtocolError):
        check_no_overflow(258, 8, 16)
    check_sum_fits(100, 655, 16)
    with pytest.raises(ProtocolError):
        check_sum_fits(100, 656, 16)
