"""What a layout accepts, and the sizes and scales that follow from it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.codec import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.codec.layout import ROTATED_RANGE_SIGMAS
from bedside.core.errors import MalformedError, ProtocolError

VALUE: dict[str, Any] = {
    "name": "body",
    "kind": SegmentKind.VALUE,
    "tensors": (TensorSlot("w", (10, 30)), TensorSlot("b", (30,))),
    "clip_e6": 2_000_000,
    "bits": 8,
    "rotation_block": 64,
}


def test_a_rotated_segment_is_padded_to_whole_blocks() -> None:
    segment = Segment(**VALUE)
    assert (segment.length, segment.words) == (330, 384)
    assert Segment(**{**VALUE, "rotation_block": 0}).words == 330


def test_a_count_segment_without_tensors_is_one_count_with_its_name() -> None:
    segment = Segment("examples", SegmentKind.COUNT, cap=500)
    assert segment.slots == (TensorSlot("examples"),)
    assert (segment.words, segment.largest_word) == (1, 500)


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_step_follows_from_clip_bits_and_words(bits: int) -> None:
    rotated = Segment(**{**VALUE, "bits": bits})
    half_levels = 2 ** (bits - 1) - 1
    assert rotated.step == pytest.approx(2.0 * ROTATED_RANGE_SIGMAS[bits] / math.sqrt(384) / half_levels)
    plain = Segment(**{**VALUE, "bits": bits, "rotation_block": 0})
    assert plain.step == pytest.approx(2.0 / half_levels)
    tiny = Segment("t", SegmentKind.VALUE, (TensorSlot("x", (2,)),), 1_000_000, bits, 2)
    assert tiny.step * half_levels <= 1.0


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "n" * 401},
        {"tensors": ()},
        {"tensors": (TensorSlot("", (3,)),)},
        {"tensors": (TensorSlot("x", (3, 0)),)},
        {"tensors": (TensorSlot("x", (1,) * 9),)},
        {"tensors": (TensorSlot("x", (10_000, 10_000)),)},
        {"clip_e6": 0},
        {"bits": 1},
        {"bits": 9},
        {"rotation_block": 1},
        {"rotation_block": 48},
        {"rotation_block": 8_192},
        {"cap": 5},
        {"kind": SegmentKind.COUNT},
        {"kind": SegmentKind.COUNT, "clip_e6": 0, "bits": 0, "rotation_block": 0},
    ],
)
def test_a_segment_that_contradicts_itself_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as caught:
        Segment(**{**VALUE, **change})
    assert caught.value.code == "bad-layout"


def test_a_name_used_twice_is_malformed() -> None:
    count = Segment("b", SegmentKind.COUNT, cap=3)
    for segments in [(Segment(**VALUE), count), (count, count), ()]:
        with pytest.raises(MalformedError):
            Layout(segments)


@settings(deadline=None)
@given(
    st.integers(0, 1 << 64),
    st.integers(0, 1 << 32),
    st.integers(0, 1 << 32),
    st.integers(0, 1 << 64),
    st.sampled_from(list(SegmentKind)),
    st.lists(st.lists(st.integers(0, 1 << 32), max_size=12), max_size=3),
)
def test_any_numbers_from_the_wire_make_a_segment_or_a_malformed_error(
    clip_e6: int, bits: int, block: int, cap: int, kind: SegmentKind, shapes: list[list[int]]
) -> None:
    slots = tuple(TensorSlot(f"t{place}", tuple(shape)) for place, shape in enumerate(shapes))
    try:
        layout = Layout((Segment("s", kind, slots, clip_e6, bits, block, cap),))
    except MalformedError:
        return
    assert 0 < layout.words <= 10_000_000


def test_segments_lie_one_after_the_other() -> None:
    layout = Layout((Segment("n", SegmentKind.COUNT, cap=9), Segment(**VALUE)))
    assert [(place.start, place.stop) for _, place in layout.placed()] == [(0, 1), (1, 385)]
    assert layout.words == 385


def test_a_ring_too_small_for_values_or_for_counts_is_refused() -> None:
    layout = Layout((Segment(**VALUE), Segment("n", SegmentKind.COUNT, cap=500)))
    layout.check_fits(131, 16)
    with pytest.raises(ProtocolError, match="overflow 16 bits") as caught:
        layout.check_fits(132, 16)
    assert caught.value.code == "ring-overflow"
    with pytest.raises(ProtocolError):
        layout.check_fits(131, 16, noise_tails=[0, 100])
    layout.check_fits(132, 20)
