"""A share of the coordinates, the same for everybody in the cohort, right on average over seeds."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.codec import Layout, Segment, SegmentKind, TensorSlot, check_sum, decode_sum, encode
from bedside.core.codec.rotation import GROUP_WORDS
from bedside.core.codec.subsample import Chooser, spread
from bedside.core.errors import MalformedError

QUARTER, EIGHTH = 1 << 30, 1 << 29
SEED = bytes(range(32))


def seed_of(number: int) -> bytes:
    return hashlib.blake2b(number.to_bytes(8, "little"), digest_size=32).digest()


def layout_of(count: int, share_e32: int, *, clip: float = 1.0, bits: int = 8, block: int = 64) -> Layout:
    values = Segment(
        "s", SegmentKind.VALUE, (TensorSlot("x", (count,)),), int(clip * 1e6), bits, block, subsample_e32=share_e32
    )
    return Layout((values, Segment("n", SegmentKind.COUNT, cap=9)))


def chosen_places(segment: Segment, seed: bytes, index: int) -> np.ndarray:
    chooser = Chooser(segment, seed, index)
    ends = range(GROUP_WORDS, segment.full_words + GROUP_WORDS, GROUP_WORDS)
    return np.concatenate([chooser.up_to(end) for end in ends])


def opened(update: np.ndarray, layout: Layout, seed: bytes, devices: int = 1) -> np.ndarray:
    total = np.zeros(layout.words, np.uint16)
    for number in range(devices):
        total += encode({"x": update}, {"n": 9}, layout, seed, seed_of(number), word_bits=16)
    check_sum(total, layout, devices, word_bits=16)
    decoded = decode_sum(total, layout, seed, devices, word_bits=16)
    assert int(decoded.counts["n"]) == 9 * devices, "counts are never subsampled"
    return decoded.tensors["x"] / np.float32(devices)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300_000), st.integers(1 << 28, (1 << 32) - 1), st.integers(0, 1 << 30))
def test_every_stratum_sends_one_coordinate_in_order(count: int, share_e32: int, number: int) -> None:
    segment = layout_of(count, share_e32, block=0).segments[0]
    places = chosen_places(segment, seed_of(number), 0)
    assert segment.words == places.size == -(-count * share_e32 // (1 << 32))
    edges = np.arange(segment.words + 1, dtype=np.int64) * count // segment.words
    assert (places >= edges[:-1]).all()
    assert (places < edges[1:]).all()


@pytest.mark.parametrize(
    ("share_e32", "block", "bits"), [(QUARTER, 64, 8), (EIGHTH, 64, 4), (QUARTER, 0, 8), (3 << 29, 32, 8)]
)
def test_the_opened_update_is_right_on_average_over_seeds(share_e32: int, block: int, bits: int) -> None:
    update = np.random.default_rng(3).standard_normal(150).astype(np.float32)
    update /= np.float32(np.linalg.norm(update) * 1.2)
    layout = layout_of(update.size, share_e32, bits=bits, block=block)
    draws = 4_000
    mean = np.mean([opened(update, layout, seed_of(number)) for number in range(draws)], axis=0, dtype=np.float64)
    spread_of_one = np.sqrt((1 << 32) / share_e32 / draws)  # of the whole vector's error, in norms of the update
    assert np.linalg.norm(mean - update) < 1.5 * spread_of_one
    alone = opened(update, layout, seed_of(0))
    assert np.linalg.norm(alone - update) > 5 * spread_of_one, "a single seed is far off, or nothing was averaged"


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5_000), st.integers(1 << 28, (1 << 32) - 1), st.data())
def test_the_steps_in_which_places_are_asked_for_do_not_matter(count: int, share_e32: int, data: st.DataObject) -> None:
    segment = layout_of(count, share_e32, block=0).segments[0]
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=5)))
    chooser = Chooser(segment, SEED, 0)
    pieces = [chooser.up_to(end) for end in [*cuts, count]]
    for piece, end in zip(pieces, [*cuts, count], strict=True):
        assert not piece.size or int(piece.max()) < end
    np.testing.assert_array_equal(np.concatenate(pieces), chosen_places(segment, SEED, 0))


def test_everybody_feeds_the_same_coordinates_and_another_seed_other_ones() -> None:
    layout = layout_of(4_096, QUARTER, block=0)
    loud = np.zeros(4_096, np.float32)
    places = chosen_places(layout.segments[0], SEED, 0)
    loud[places] = 1 / 64
    assert np.count_nonzero(opened(loud, layout, SEED, devices=3)) == layout.segments[0].words
    quiet = np.full(4_096, 1 / 64, np.float32)
    quiet[places] = 0
    assert not opened(quiet, layout, SEED, devices=3).any()
    assert opened(quiet, layout, seed_of(1), devices=3).any()


def test_a_subsampled_sum_is_the_sum_on_the_chosen_coordinates() -> None:
    layout = layout_of(200_000, QUARTER, clip=2.0, block=1_024)
    update = np.random.default_rng(1).standard_normal(200_000).astype(np.float32) / np.float32(450)
    got = opened(update, layout, SEED, devices=5)
    assert float(np.dot(got, update) / np.dot(update, update)) == pytest.approx(1.0, abs=0.02)
    assert float(np.sum((got - update) ** 2) / np.sum(update**2)) == pytest.approx(3.0, abs=0.1)


def test_the_vector_shrinks_to_its_share() -> None:
    assert layout_of(1_000, 0, block=64).words == 1_024 + 1
    assert layout_of(1_000, QUARTER, block=64).words == 256 + 1
    assert layout_of(1_000, EIGHTH, block=64).words == 128 + 1
    assert layout_of(3, 1 << 28, block=0).words == 1 + 1


def test_a_clipped_update_stays_inside_the_norm_check_whatever_the_coordinates() -> None:
    layout = layout_of(4_096, EIGHTH, block=0)
    spike = np.zeros(4_096, np.float32)
    spike[int(chosen_places(layout.segments[0], SEED, 0)[7])] = 1e6
    assert float(opened(spike, layout, SEED, devices=4).max()) == pytest.approx(8.0, rel=0.01)


@pytest.mark.parametrize("share_e32", [1, (1 << 28) - 1, 1 << 32, -1])
def test_less_than_a_sixteenth_is_refused(share_e32: int) -> None:
    with pytest.raises(MalformedError) as caught:
        layout_of(100, share_e32)
    assert caught.value.code == "bad-layout"


def test_a_count_is_never_subsampled() -> None:
    with pytest.raises(MalformedError):
        Segment("n", SegmentKind.COUNT, cap=9, subsample_e32=QUARTER)


def test_the_chosen_coordinates_and_the_bits_of_an_opened_sum_are_pinned() -> None:
    layout = layout_of(100_000, 3 << 29, block=1_024)
    places = chosen_places(layout.segments[0], SEED, 0)
    assert hashlib.blake2b(places.astype("<i4").tobytes(), digest_size=8).hexdigest() == "85369bcaec689de5"
    words = (np.arange(layout.words, dtype=np.uint32) * 37 % 255).astype(np.uint16)
    tensor = decode_sum(words, layout, SEED, 1, word_bits=16).tensors["x"]
    assert hashlib.blake2b(tensor.astype("<f4").tobytes(), digest_size=8).hexdigest() == "9c48d0d29024e1d8"


def test_what_was_sent_counts_as_often_as_its_stratum_is_long() -> None:
    segment = layout_of(10, 3 << 30, block=0).segments[0]  # 8 of 10
    places = chosen_places(segment, SEED, 0)
    flat = spread(np.ones(8, np.float32), segment, Chooser(segment, SEED, 0))
    assert float(flat.sum()) == 10
    assert sorted(flat[places]) == [1, 1, 1, 1, 1, 1, 2, 2]
