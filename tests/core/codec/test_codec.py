"""Encoding on devices, summing in the ring, opening the sum."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.codec import (
    FloatArray,
    Layout,
    Segment,
    SegmentKind,
    TensorSlot,
    check_sum,
    decode_sum,
    encode,
)
from bedside.core.errors import ProtocolError
from bedside.core.securesum.ring import Words, word_dtype, word_mask

SEED = bytes(range(32))


def key_of(number: int) -> bytes:
    return hashlib.blake2b(number.to_bytes(8, "little"), digest_size=32).digest()


def one_segment(count: int, clip: float, *, bits: int = 8, block: int = 4_096) -> Layout:
    slot = TensorSlot("x", (count,))
    return Layout((Segment("s", SegmentKind.VALUE, (slot,), int(clip * 1e6), bits, block),))


def small_layout(bits: int = 8, block: int = 64) -> Layout:
    return Layout(
        (
            Segment(
                "body",
                SegmentKind.VALUE,
                (TensorSlot("w", (9, 20)), TensorSlot("b", (20,))),
                3_000_000,
                bits,
                block,
            ),
            Segment("head", SegmentKind.VALUE, (TensorSlot("scale"),), 500_000, 6),
            Segment("examples", SegmentKind.COUNT, cap=300),
            Segment("confusion", SegmentKind.COUNT, (TensorSlot("confusion.cells", (3, 3)),), cap=300),
        )
    )


def random_update(seed: int) -> tuple[dict[str, FloatArray], dict[str, int | np.ndarray]]:
    rng = np.random.default_rng(seed)
    tensors = {
        "w": (rng.standard_normal((9, 20)) * 0.15).astype(np.float32),
        "b": (rng.standard_normal(20) * 0.15).astype(np.float32),
        "scale": np.array(rng.uniform(-0.5, 0.5), np.float32),
    }
    return tensors, {"examples": int(rng.integers(1, 301)), "confusion.cells": rng.integers(0, 301, (3, 3))}


def ring_sum(vectors: list[Words], word_bits: int) -> Words:
    total = np.zeros_like(vectors[0])
    for vector in vectors:
        total += vector
    return total & total.dtype.type(word_mask(word_bits))


def nmse(decoded: FloatArray, wanted: FloatArray) -> float:
    return float(np.sum((decoded - wanted) ** 2) / np.sum(wanted**2))


@pytest.mark.parametrize(("bits", "worst"), [(8, 0.001), (6, 0.005), (4, 0.04)])
def test_a_heavy_tailed_update_survives_rotation_and_rounding(bits: int, worst: float) -> None:
    update = np.random.default_rng(1).standard_t(3, 200_000).astype(np.float32)
    layout = one_segment(update.size, float(np.linalg.norm(update)), bits=bits)
    words = encode({"x": update}, {}, layout, SEED, key_of(1), word_bits=16)
    decoded = decode_sum(words, layout, SEED, 1, word_bits=16).tensors["x"]
    assert nmse(decoded, update) < worst


def test_without_rotation_the_same_update_is_lost_which_is_why_it_is_rotated() -> None:
    update = np.random.default_rng(1).standard_t(3, 50_000).astype(np.float32)
    layout = one_segment(update.size, float(np.linalg.norm(update)), block=0)
    words = encode({"x": update}, {}, layout, SEED, key_of(1), word_bits=16)
    assert nmse(decode_sum(words, layout, SEED, 1, word_bits=16).tensors["x"], update) > 0.1


def test_a_loud_layer_is_not_clamped() -> None:
    update = np.random.default_rng(2).standard_normal(64 * 4_096).astype(np.float32)
    update[: update.size // 10] *= 30
    layout = one_segment(update.size, float(np.linalg.norm(update)))
    words = encode({"x": update}, {}, layout, SEED, key_of(2), word_bits=16)
    assert nmse(decode_sum(words, layout, SEED, 1, word_bits=16).tensors["x"], update) < 0.001


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(2, 8),
    st.sampled_from([0, 2, 32, 64, 256]),
    st.integers(13, 32),
    st.integers(0, 1 << 30),
)
def test_the_sum_of_encodings_opens_to_the_sum(
    contributors: int, bits: int, block: int, word_bits: int, seed: int
) -> None:
    layout = small_layout(bits, block)
    updates = [random_update(seed + number) for number in range(contributors)]
    vectors = [
        encode(tensors, counts, layout, SEED, key_of(seed + number), word_bits=word_bits)
        for number, (tensors, counts) in enumerate(updates)
    ]
    total = ring_sum(vectors, word_bits)
    check_sum(total, layout, contributors, word_bits=word_bits)
    opened = decode_sum(total, layout, SEED, contributors, word_bits=word_bits)
    body, head = layout.segments[0], layout.segments[1]
    if bits == 8:  # so wide a range that nothing here is clamped
        wanted = np.concatenate([sum(update[0][name] for update in updates).reshape(-1) for name in ("w", "b")])
        got = np.concatenate([opened.tensors["w"].reshape(-1), opened.tensors["b"]])
        bound = contributors * body.step * np.sqrt(body.words)
        assert np.linalg.norm(got - wanted) <= bound + 1e-4
    scale = sum(float(update[0]["scale"]) for update in updates)
    assert abs(float(opened.tensors["scale"]) - scale) <= contributors * head.step + 1e-5
    assert int(opened.counts["examples"]) == sum(int(update[1]["examples"]) for update in updates)
    cells = sum(np.asarray(update[1]["confusion.cells"]) for update in updates)
    np.testing.assert_array_equal(opened.counts["confusion.cells"], cells)


def test_every_word_is_at_most_the_largest_word_of_its_segment() -> None:
    layout = small_layout(bits=3)
    tensors, counts = random_update(5)
    words = encode(
        {name: tensor * 1e6 for name, tensor in tensors.items()}, counts, layout, SEED, key_of(5), word_bits=16
    )
    for segment, place in layout.placed():
        assert int(words[place].max()) <= segment.largest_word


def test_rounding_errors_average_out_over_devices() -> None:
    update = np.random.default_rng(4).standard_normal(4_096).astype(np.float32)
    layout = one_segment(4_096, float(np.linalg.norm(update)) * 1.5)
    vectors = [encode({"x": update}, {}, layout, SEED, key_of(n), word_bits=16) for n in range(100)]
    alone = decode_sum(vectors[0], layout, SEED, 1, word_bits=16).tensors["x"]
    mean = decode_sum(ring_sum(vectors, 16), layout, SEED, 100, word_bits=16).tensors["x"] / np.float32(100)
    assert nmse(mean, update) < nmse(alone, update) / 50


def test_a_long_update_is_clipped_to_its_bound_and_a_short_one_is_left_alone() -> None:
    update = np.random.default_rng(6).standard_normal(4_096).astype(np.float32)
    layout = one_segment(4_096, 10.0)
    words = encode({"x": update}, {}, layout, SEED, key_of(6), word_bits=16)
    opened = decode_sum(words, layout, SEED, 1, word_bits=16).tensors["x"]
    assert float(np.linalg.norm(opened)) == pytest.approx(10.0, rel=0.01)
    short = update / np.float32(8)
    words = encode({"x": short}, {}, layout, SEED, key_of(6), word_bits=16)
    assert nmse(decode_sum(words, layout, SEED, 1, word_bits=16).tensors["x"], short) < 0.001


def test_an_update_of_nothing_but_zeros_opens_to_exact_zeros() -> None:
    layout = one_segment(5_000, 1.0)
    words = encode({"x": np.zeros(5_000, np.float32)}, {}, layout, SEED, key_of(0), word_bits=16)
    assert not decode_sum(words, layout, SEED, 1, word_bits=16).tensors["x"].any()


@pytest.mark.parametrize("word_bits", [16, 17, 32])
def test_noise_that_carries_a_sum_below_zero_opens_to_negative_numbers(word_bits: int) -> None:
    layout = Layout(
        (
            Segment("x", SegmentKind.VALUE, (TensorSlot("x", (2,)),), 1_000_000, 8),
            Segment("n", SegmentKind.COUNT, cap=10),
        )
    )
    words = encode({"x": np.array([-1, 0], np.float32)}, {"n": 0}, layout, SEED, key_of(1), word_bits=word_bits)
    noisy = (words.astype(np.int64) - 20) % (1 << word_bits)
    sums = noisy.astype(word_dtype(word_bits))
    opened = decode_sum(sums, layout, SEED, 1, word_bits=word_bits)
    step = layout.segments[0].step
    np.testing.assert_allclose(opened.tensors["x"], [-147 * step, -20 * step], rtol=1e-5)
    assert int(opened.counts["n"]) == -20
    check_sum(sums, layout, 1, word_bits=word_bits, noise_tails=[40, 40])
    with pytest.raises(ProtocolError) as caught:
        check_sum(sums, layout, 1, word_bits=word_bits)
    assert caught.value.code == "sum-out-of-bounds"


def test_a_garbage_sum_is_out_of_bounds() -> None:
    layout = one_segment(4_096, 1.0)
    garbage = np.random.default_rng(0).integers(0, 1 << 16, layout.words, dtype=np.uint16)
    with pytest.raises(ProtocolError) as caught:
        check_sum(garbage, layout, 100, word_bits=16)
    assert caught.value.code == "sum-out-of-bounds"


def test_one_device_that_ignores_the_clip_is_out_of_bounds_among_few() -> None:
    layout = one_segment(4_096, 1.0)
    honest = np.random.default_rng(1).standard_normal(4_096).astype(np.float32)
    vectors = [encode({"x": honest}, {}, layout, SEED, key_of(n), word_bits=16) for n in range(2)]
    check_sum(ring_sum(vectors, 16), layout, 2, word_bits=16)
    vectors.append(np.full(layout.words, 254, np.uint16))
    with pytest.raises(ProtocolError):
        check_sum(ring_sum(vectors, 16), layout, 3, word_bits=16)


def test_a_count_one_above_what_the_devices_may_give_is_out_of_bounds() -> None:
    layout = Layout((Segment("n", SegmentKind.COUNT, cap=10),))
    check_sum(np.array([30], np.uint16), layout, 3, word_bits=16)
    with pytest.raises(ProtocolError, match="within 0 and 30"):
        check_sum(np.array([31], np.uint16), layout, 3, word_bits=16)


@pytest.mark.parametrize(("word_bits", "cap"), [(16, 65_535), (16, 65_534), (12, 4_095), (32, 2**32 - 1)])
@pytest.mark.parametrize("of_the_ring", ["lowest", "highest"])
def test_counts_use_the_ring_to_its_last_word(word_bits: int, cap: int, of_the_ring: str) -> None:
    layout = Layout((Segment("n", SegmentKind.COUNT, cap=cap),))
    count = cap if of_the_ring == "highest" else 0
    words = encode({}, {"n": count}, layout, SEED, key_of(1), word_bits=word_bits)
    check_sum(words, layout, 1, word_bits=word_bits)
    assert int(decode_sum(words, layout, SEED, 1, word_bits=word_bits).counts["n"]) == count


def test_the_norm_of_the_widest_words_is_exact() -> None:
    layout = one_segment(4_096, 1.0)
    far = np.full(layout.words, (1 << 31) + 127, np.uint32)
    with pytest.raises(ProtocolError, match=str((1 << 31) * 64)):
        check_sum(far, layout, 1, word_bits=32)


def test_the_bits_of_an_opened_sum_are_pinned() -> None:
    layout = small_layout()
    words = (np.arange(layout.words, dtype=np.uint32) * 37 % 255).astype(np.uint16)
    tensors = decode_sum(words, layout, SEED, 1, word_bits=16).tensors
    joined = b"".join(tensors[name].astype("<f4").tobytes() for name in sorted(tensors))
    assert hashlib.blake2b(joined, digest_size=16).hexdigest() == "624aadfaed14d80032bb05a158039915"


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e19, 3e38])
def test_an_update_that_diverged_is_refused(poison: float) -> None:
    tensors, counts = random_update(1)
    tensors["w"][3, 4] = poison
    with pytest.raises(ProtocolError) as caught:
        encode(tensors, counts, small_layout(), SEED, key_of(1), word_bits=16)
    assert caught.value.code == "delta-not-finite"


def test_an_update_in_other_names_shapes_or_types_is_refused() -> None:
    tensors, counts = random_update(1)
    wrong = [
        ({**tensors, "stray": tensors["b"]}, counts),
        ({name: tensor for name, tensor in tensors.items() if name != "b"}, counts),
        ({**tensors, "b": tensors["b"][:-1]}, counts),
        ({**tensors, "b": tensors["b"].astype(np.float64)}, counts),
        (tensors, {**counts, "examples": 1.5}),
        (tensors, {**counts, "confusion.cells": np.zeros((9,), np.int64)}),
    ]
    for bad_tensors, bad_counts in wrong:
        with pytest.raises(ProtocolError) as caught:
            encode(bad_tensors, bad_counts, small_layout(), SEED, key_of(1), word_bits=16)  # type: ignore[arg-type]  # that is the point
        assert caught.value.code == "tensor-mismatch"


def test_an_update_is_not_encoded_for_a_ring_that_cannot_hold_it() -> None:
    tensors, counts = random_update(1)
    with pytest.raises(ProtocolError) as caught:
        encode(tensors, counts, small_layout(), SEED, key_of(1), word_bits=8)
    assert caught.value.code == "ring-overflow"


@pytest.mark.parametrize("count", [-1, 301])
def test_a_count_outside_its_cap_is_refused(count: int) -> None:
    tensors, counts = random_update(1)
    with pytest.raises(ProtocolError) as caught:
        encode(tensors, {**counts, "examples": count}, small_layout(), SEED, key_of(1), word_bits=16)
    assert caught.value.code == "count-out-of-range"


def test_a_sum_of_another_length_type_or_of_nobody_is_refused() -> None:
    layout = one_segment(100, 1.0, block=0)
    for words, contributors in [
        (np.zeros(99, np.uint16), 1),
        (np.zeros(100, np.uint32), 1),
        (np.zeros(100, np.uint16), 0),
    ]:
        with pytest.raises(ProtocolError) as caught:
            decode_sum(words, layout, SEED, contributors, word_bits=16)
        assert caught.value.code == "wrong-vector-length"
