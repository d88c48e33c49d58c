"""Decimal floats of personal health devices."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.agent.formats.ieee11073.floats import decode_float, decode_sfloat


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (0xFF00016E, 36.6),
        (0xFE000E4C, 36.6),
        (0xFFFFFE92, -36.6),
        (0x00000062, 98.0),
        (0x0200000C, 1200.0),
        (0x007FFFFD, 8_388_605.0),
        (0x00800003, -8_388_605.0),
    ],
)
def test_a_float_is_the_nearest_double_to_its_decimal(word: int, value: float) -> None:
    assert decode_float(word) == value


@pytest.mark.parametrize(
    ("word", "value"), [(0x0062, 98.0), (0xF2F0, 75.2), (0xF010, 1.6), (0x100C, 120.0), (0x0803, -2045.0)]
)
def test_an_sfloat_is_the_nearest_double_to_its_decimal(word: int, value: float) -> None:
    assert decode_sfloat(word) == value


@pytest.mark.parametrize("exponent", [0, 5, 0xFF])
@pytest.mark.parametrize("mantissa", [0x7FFFFF, 0x7FFFFE, 0x800000, 0x800001, 0x800002])
def test_no_special_float_is_a_value_under_any_exponent(mantissa: int, exponent: int) -> None:
    assert decode_float(exponent << 24 | mantissa) is None


@pytest.mark.parametrize("exponent", [0, 5, 0xF])
@pytest.mark.parametrize("mantissa", [0x7FF, 0x7FE, 0x800, 0x801, 0x802])
def test_no_special_sfloat_is_a_value_under_any_exponent(mantissa: int, exponent: int) -> None:
    assert decode_sfloat(exponent << 12 | mantissa) is None


@given(st.integers(0, 2**32 - 1))
def test_every_word_is_finite_or_nothing(word: int) -> None:
    for value in (decode_float(word), decode_sfloat(word & 0xFFFF)):
        assert value is None or math.isfinite(value)


@given(st.integers(-8_388_605, 8_388_605), st.integers(-128, 127))
def test_a_float_reads_as_its_decimal_text_does(mantissa: int, exponent: int) -> None:
    word = (exponent & 0xFF) << 24 | (mantissa & 0xFFFFFF)
    assert decode_float(word) == float(f"{mantissa}e{exponent}")
