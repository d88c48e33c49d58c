"""Packing of samples: exact, bounded, and deaf to garbage."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bedside.agent.buffer.codec import MAX_PART_SAMPLES, decode_samples, encode_samples
from bedside.core.errors import MalformedError

SHAPES = st.tuples(st.integers(1, 60), st.integers(1, 9))


@settings(deadline=None, database=None, max_examples=300)
@given(st.sampled_from([np.int16, np.int32, np.float32]).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES)))
def test_every_value_comes_back_bit_for_bit(values: np.ndarray) -> None:
    again = decode_samples(encode_samples(values), *values.shape, values.dtype.name)
    assert again.dtype == values.dtype
    assert again.tobytes() == values.tobytes()


@settings(deadline=None, database=None, max_examples=300)
@given(st.binary(max_size=200))
def test_garbage_is_malformed(data: bytes) -> None:
    for blob in (data, zlib.compress(data)):
        try:
            decode_samples(blob, 5, 2, "int16")
        except MalformedError:
            continue
        assert len(data) == 20


@pytest.mark.parametrize(
    ("samples", "channels", "dtype"),
    [(0, 1, "int16"), (MAX_PART_SAMPLES + 1, 1, "int16"), (1, 1, "float64"), (10**5, 10**3, "int32")],
)
def test_impossible_shapes_are_refused_before_anything_is_allocated(samples: int, channels: int, dtype: str) -> None:
    with pytest.raises(MalformedError):
        decode_samples(zlib.compress(bytes(10)), samples, channels, dtype)


def test_a_bomb_stops_at_the_announced_size() -> None:
    with pytest.raises(MalformedError, match="length"):
        decode_samples(zlib.compress(bytes(50 << 20)), 5, 2, "int16")
