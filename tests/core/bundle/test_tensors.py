import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bedside.core.bundle.tensors import decode_tensors, encode_tensors
from bedside.core.errors import MalformedError

DTYPES = st.sampled_from([np.float32, np.float64, np.int8, np.uint8, np.int32, np.int64])
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
SAMPLE = encode_tensors({"w0": np.ones((2, 3), np.float32), "b0": np.zeros(3, np.int8)})


def read(data):
    """Tensors, or the one kind of error; anything else fails the test."""
    with suppress(MalformedError):
        assert all(array.nbytes <= len(data) for array in decode_tensors(data).values())


def crafted(header, data=b""):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return len(text).to_bytes(8, "little") + text + data


@given(st.dictionaries(st.text(min_size=1, max_size=20), ARRAYS, max_size=5))
def test_arrays_come_back_as_they_were(tensors):
    found = decode_tensors(encode_tensors(tensors))
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_the_order_of_arrays_does_not_change_the_bytes():
    arrays = {"b": np.ones(2, np.float32), "a": np.zeros(3, np.int64)}
    assert encode_tensors(arrays) == encode_tensors(dict(reversed(arrays.items())))


@given(st.binary(max_size=500))
@example((2**63).to_bytes(8, "little"))
@example(crafted(b"[" * 5_000))
def test_any_bytes_give_tensors_or_one_kind_of_error(data):
    read(data)


@given(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_tensors_or_one_kind_of_error(at, value):
    data = bytearray(SAMPLE)
    data[at] = value
    read(bytes(data))


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}},
        {"": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"a" * 65: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "more": 1}},
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"},
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused(header):
    with pytest.raises(MalformedError):
        decode_tensors(crafted(header, bytes(4)))


@pytest.mark.parametrize("shape", [[0, 2**62, 2**62], [0, 2**80], [2**62, 0, 2**62]])
def test_axes_beside_an_empty_one_are_bounded_too(shape):
    with pytest.raises(MalformedError):
        decode_tensors(crafted({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}))


def test_more_tensors_than_the_limit_are_refused():
    header = {str(at): {"dtype": "I8", "shape": [0], "data_offsets": [0, 0]} for at in range(1_025)}
    with pytest.raises(MalformedError, match="at most"):
        decode_tensors(crafted(header))
