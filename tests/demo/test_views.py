import numpy as np

from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.securesum.ring import pack
from bedside.demo.views import BINS, coordinator_view, uniform_z

WORD_BITS = 16
DEVICES = 8
LAYOUT = Layout(
    (
        Segment("parameters", SegmentKind.VALUE, (TensorSlot("w", (8192,)),), 2_000_000, 8, 1024),
        Segment("examples", SegmentKind.COUNT, cap=500),
    )
)


def vectors() -> tuple[bytes, bytes]:
    rng = np.random.default_rng(7)
    masked = rng.integers(0, 1 << WORD_BITS, LAYOUT.words).astype(np.uint16)
    steps = np.rint(rng.normal(0, 60, LAYOUT.words)).astype(np.int64)
    middle = DEVICES * LAYOUT.segments[0].half_levels
    summed = ((steps + middle) % (1 << WORD_BITS)).astype(np.uint16)
    summed[-1] = 60_000  # a count: were it among the values, the bell would be off
    return pack(masked, WORD_BITS), pack(summed, WORD_BITS)


def test_an_upload_is_flat_and_the_sum_is_a_bell() -> None:
    view = coordinator_view(*vectors(), LAYOUT, WORD_BITS, contributors=DEVICES, round_number=3)

    assert sum(view.upload) == 8192
    assert len(view.upload) == BINS
    assert abs(view.upload_z) < 4
    middle = len(view.opened) // 2
    assert abs(view.opened.index(max(view.opened)) - middle) <= 5
    assert sum(view.opened[middle - 5 : middle + 6]) > sum(view.opened) / 3
    assert view.opened_low == -view.opened_high


def test_counts_are_left_out_of_the_bell() -> None:
    view = coordinator_view(*vectors(), LAYOUT, WORD_BITS, contributors=DEVICES, round_number=3)

    assert view.opened_high < 400


def test_an_unmasked_upload_would_be_noticed() -> None:
    _, opened = vectors()

    view = coordinator_view(opened, opened, LAYOUT, WORD_BITS, contributors=DEVICES, round_number=3)

    assert view.upload_z > 100


def test_equal_counts_are_more_uniform_than_chance() -> None:
    assert uniform_z(np.full(48, 100)) < -4
