"""From one multiplier to sigmas, and the ring that holds them."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.codec import encode
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.errors import ProtocolError
from bedside.core.privacy.gaussian import largest_draw
from bedside.core.privacy.mechanism import check_ring, multiplier_e6, noise_tails, segment_sigmas_e6, sensitivity

LAYOUT = Layout(
    (
        Segment("body", SegmentKind.VALUE, (TensorSlot("w", (300,)),), clip_e6=2_000_000, bits=8, rotation_block=64),
        Segment("head", SegmentKind.VALUE, (TensorSlot("b", (7,)),), clip_e6=500_000, bits=4),
        Segment("bins", SegmentKind.COUNT, (TensorSlot("h", (5,)),), cap=20),
    )
)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.floats(1e-3, 1e3), st.booleans())
def test_no_device_moves_a_segment_by_more_than_its_sensitivity(seed: int, scale: float, spiky: bool) -> None:
    """Against the contribution that says nothing: all values and counts zero."""
    random = np.random.default_rng(seed)
    tensors = {name: (random.standard_normal(size) * scale).astype(np.float32) for name, size in (("w", 300), ("b", 7))}
    if spiky:
        tensors["w"][1:] = 0
    key = hashlib.blake2b(seed.to_bytes(8, "big"), digest_size=32).digest()
    full = encode(tensors, {"h": np.full(5, 20)}, LAYOUT, b"r" * 32, key, word_bits=16).astype(int)
    silent = {name: np.zeros_like(value) for name, value in tensors.items()}
    nothing = encode(silent, {"h": np.zeros(5, np.int64)}, LAYOUT, b"r" * 32, key, word_bits=16).astype(int)
    for segment, place in LAYOUT.placed():
        assert np.linalg.norm(full[place] - nothing[place]) <= sensitivity(segment)
    counts = LAYOUT.placed()[2][1]
    assert np.linalg.norm(full[counts] - nothing[counts]) == pytest.approx(sensitivity(LAYOUT.segments[2]))


@pytest.mark.parametrize("z", [0.3, 1.0, 7.5])
def test_the_whole_vector_is_one_gaussian_mechanism_of_that_multiplier(z: float) -> None:
    sigmas = [sigma_e6 / 1e6 for sigma_e6 in segment_sigmas_e6(LAYOUT, multiplier_e6(z))]
    moved = [sensitivity(segment) / sigma for segment, sigma in zip(LAYOUT.segments, sigmas, strict=True)]
    assert math.hypot(*moved) <= 1 / z
    assert math.hypot(*moved) == pytest.approx(1 / z, rel=1e-6)
    assert segment_sigmas_e6(LAYOUT, 0) == [0, 0, 0]


def test_tails_add_up_over_trustees_and_differ_between_segments() -> None:
    one = noise_tails(LAYOUT, [1_000_000])
    assert one == [2 * largest_draw(sigma_e6) for sigma_e6 in segment_sigmas_e6(LAYOUT, 1_000_000)]
    assert len(set(one)) == 3
    assert noise_tails(LAYOUT, [1_000_000] * 3) == [3 * tail for tail in one]
    assert noise_tails(LAYOUT, [1_000_000, 0]) == one
    assert noise_tails(LAYOUT, []) == [0, 0, 0]


def test_the_ring_must_hold_the_sum_and_all_noise_in_the_tightest_segment() -> None:
    tails = noise_tails(LAYOUT, [1_000_000] * 3)
    most = (2**16 - 1 - max(tails)) // 255
    assert max(tails) == tails[0], "the rotated segment is the tightest here"
    check_ring(LAYOUT, most, 16, [1_000_000] * 3)
    for multipliers in ([1_000_000, 1_000_000, 1_100_000], [1_000_000] * 4):
        with pytest.raises(ProtocolError) as caught:
            check_ring(LAYOUT, most, 16, multipliers)
        assert caught.value.code == "ring-overflow"
    with pytest.raises(ProtocolError):
        check_ring(LAYOUT, most + 1, 16, [1_000_000] * 3)
    check_ring(LAYOUT, most + 1, 17, [1_000_000] * 3)


@pytest.mark.parametrize(("z", "wire"), [(0, 0), (0.7, 700_000), (1, 1_000_000), (1 / 3, 333_334), (1e-9, 1)])
def test_a_multiplier_on_the_wire_is_never_below_the_one_that_was_meant(z: float, wire: int) -> None:
    assert multiplier_e6(z) == wire
