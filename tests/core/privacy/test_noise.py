"""The noise of one answer: a function of round key, plan, cohort and set, and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.privacy import add_noise, noise_key, segment_sigmas_e6
from bedside.core.securesum.ring import word_dtype

LAYOUT = Layout(
    (
        Segment("w", SegmentKind.VALUE, (TensorSlot("w", (20_000,)),), clip_e6=2_000_000, bits=4, rotation_block=32),
        Segment("n", SegmentKind.COUNT, (TensorSlot("h", (20_000,)),), cap=3),
    )
)
H, ROOT = b"h" * 32, b"r" * 32


def noise(key: bytes, z: float = 1.0, word_bits: int = 32) -> np.ndarray:
    words = np.zeros(LAYOUT.words, word_dtype(word_bits))
    add_noise(words, LAYOUT, round(z * 1e6), key, word_bits)
    signed = words.astype(np.int64)
    signed[signed >= 1 << (word_bits - 1)] -= 1 << word_bits
    return signed


def test_the_same_set_gets_the_same_noise_and_another_set_another() -> None:
    key = noise_key(b"s" * 96, H, 0, ROOT)
    assert np.array_equal(noise(key), noise(noise_key(b"s" * 96, H, 0, ROOT)))
    others = [
        noise_key(b"t" * 96, H, 0, ROOT),
        noise_key(b"s" * 95 + b"t", H, 0, ROOT),
        noise_key(b"s" * 96, b"g" * 32, 0, ROOT),
        noise_key(b"s" * 96, H, 1, ROOT),
        noise_key(b"s" * 96, H, 0, b"q" * 32),
    ]
    assert len({key, *others}) == 6
    for other in others:
        both = np.corrcoef(noise(key), noise(other))[0, 1]
        assert abs(both) < 0.03, "40,000 words: 0.03 is six standard deviations"


def test_each_segment_has_its_own_sigma_and_noise_of_its_own() -> None:
    drawn = noise(noise_key(b"s" * 96, H, 0, ROOT))
    parts = [drawn[place] for _, place in LAYOUT.placed()]
    for part, sigma_e6 in zip(parts, segment_sigmas_e6(LAYOUT, 1_000_000), strict=True):
        assert part.std() == pytest.approx(sigma_e6 / 1e6, rel=0.03)
        assert abs(part.mean()) < 6 * part.std() / part.size**0.5
    assert abs(np.corrcoef(parts[0][:20_000], parts[1])[0, 1]) < 0.045


@pytest.mark.parametrize("word_bits", [12, 16, 20, 32])
def test_noise_wraps_in_the_ring_and_comes_off_again(word_bits: int) -> None:
    key = noise_key(b"s" * 96, H, 0, ROOT)
    before = np.random.default_rng(1).integers(0, 1 << word_bits, LAYOUT.words).astype(word_dtype(word_bits))
    words = before.copy()
    add_noise(words, LAYOUT, 500_000, key, word_bits)
    assert not np.array_equal(words, before)
    assert int(words.max()) < 1 << word_bits
    assert np.array_equal(words.astype(np.int64), (before + noise(key, 0.5)) % (1 << word_bits))
    add_noise(words, LAYOUT, 500_000, key, word_bits, subtract=True)
    assert np.array_equal(words, before)


def test_a_multiplier_of_zero_leaves_the_words_alone() -> None:
    words = np.arange(LAYOUT.words, dtype=np.uint16)
    add_noise(words, LAYOUT, 0, b"k" * 32, 16)
    assert np.array_equal(words, np.arange(LAYOUT.words))
