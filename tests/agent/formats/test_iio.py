"""Forms and scans of Linux industrial IO."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.agent.formats.iio import (
    MAX_ELEMENTS,
    SampleForm,
    ScanLayout,
    kind_of,
    parse_form,
    parse_number,
)
from bedside.core.errors import MalformedError

LITTLE, BIG = False, True
UNSIGNED, SIGNED = False, True


@st.composite
def forms(draw) -> SampleForm:
    storage = draw(st.sampled_from([8, 16, 32, 64]))
    bits = draw(st.integers(1, storage))
    shift = draw(st.integers(0, storage - bits))
    signed = draw(st.booleans()) or bits == 64
    return SampleForm(draw(st.booleans()), signed, bits, storage, shift, draw(st.integers(1, 3)))


def text_of(form: SampleForm) -> str:
    repeat = f"X{form.repeat}" if form.repeat > 1 else ""
    sign, order = "s" if form.signed else "u", "be" if form.big_endian else "le"
    return f"{order}:{sign}{form.bits}/{form.storage_bits}{repeat}>>{form.shift}"


def test_the_forms_of_real_drivers_are_read() -> None:
    assert parse_form("le:s12/16>>4\n") == SampleForm(LITTLE, SIGNED, 12, 16, 4)
    assert parse_form("be:u24/32>>8") == SampleForm(BIG, UNSIGNED, 24, 32, 8)
    assert parse_form("le:s64/64>>0") == SampleForm(LITTLE, SIGNED, 64, 64, 0)
    assert parse_form("le:s32/32X4>>0") == SampleForm(LITTLE, SIGNED, 32, 32, 0, 4)


@given(forms())
def test_a_form_reads_as_it_is_written(form: SampleForm) -> None:
    assert parse_form(text_of(form)) == form


@pytest.mark.parametrize(
    "text",
    ["", "le:s16/16", "me:s16/16>>0", "le:f32/32>>0", "le:s17/16>>0", "le:s16/16>>1", "le:s0/16>>0", "le:s12/12>>0",
     "le:u64/64>>0", "le:s16/16X0>>0", "le:s16/16X99>>0", "le:s16/16>>-1", "le:s16/16>>0 x", "le:s\u0661/16>>0"],
)  # fmt: skip
def test_what_is_no_form_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_form(text)


def test_elements_lie_at_multiples_of_their_size_and_the_scan_at_one_of_its_largest() -> None:
    layout = ScanLayout([parse_form(one) for one in ("le:s16/16>>0", "le:s16/16>>0", "be:s16/16>>0", "le:s64/64>>0")])
    assert layout.scan_bytes == 16
    data = struct.pack("<hh", 1, -2) + struct.pack(">h", -3) + b"\xaa\xaa" + struct.pack("<q", 10**18)
    assert layout.decode(data * 2).tolist() == [[1, -2, -3, 10**18]] * 2
    layout = ScanLayout([parse_form(one) for one in ("le:u8/8>>0", "le:u32/32>>0", "le:u8/8>>0")])
    assert layout.scan_bytes == 12
    assert layout.decode(bytes([7, 9, 9, 9, 1, 0, 0, 0, 8, 9, 9, 9])).tolist() == [[7, 1, 8]]


def test_a_repeated_element_has_a_column_a_word() -> None:
    layout = ScanLayout([parse_form("le:s16/16X4>>0"), parse_form("le:s64/64>>0")])
    assert layout.columns == [0, 4, 5]
    assert layout.scan_bytes == 16
    assert layout.decode(struct.pack("<4hq", 1, 2, 3, -4, 5)).tolist() == [[1, 2, 3, -4, 5]]


@given(forms(), st.data())
def test_a_sample_is_what_its_bits_say_whatever_stands_beside_them(form: SampleForm, data) -> None:
    low, high = (-(1 << (form.bits - 1)), (1 << (form.bits - 1)) - 1) if form.signed else (0, (1 << form.bits) - 1)
    values = data.draw(st.lists(st.integers(low, high), min_size=form.repeat, max_size=form.repeat))
    beside = data.draw(st.integers(0, (1 << form.storage_bits) - 1))
    mask = ((1 << form.bits) - 1) << form.shift
    words = [(beside & ~mask) | (value << form.shift & mask) for value in values]
    size = form.storage_bits // 8
    sent = b"".join(word.to_bytes(size, "big" if form.big_endian else "little") for word in words)
    assert ScanLayout([form]).decode(sent).tolist() == [values]


def test_a_piece_of_a_scan_and_a_scan_of_nothing_are_malformed() -> None:
    form = parse_form("le:s16/16>>0")
    with pytest.raises(MalformedError):
        ScanLayout([form]).decode(b"\0\0\0")
    for wrong in ([], [form] * (MAX_ELEMENTS + 1)):
        with pytest.raises(MalformedError):
            ScanLayout(wrong)
    assert ScanLayout([form]).decode(b"").shape == (0, 1)


@pytest.mark.parametrize(("text", "number"), [("21500\n", 21500.0), ("0.061\n", 0.061), ("-7", -7.0)])
def test_a_number_of_sysfs_is_read(text: str, number: float) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "nan", "inf", "1 2", "x", "1" * 99])
def test_what_is_no_finite_number_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_number(text)


@pytest.mark.parametrize(
    ("channel", "kind"),
    [("accel_x", "accel"), ("voltage0", "voltage"), ("temp", "temp"), ("voltage0-voltage1", "voltage"), ("", "")],
)
def test_a_channels_kind_is_what_its_name_begins_with(channel: str, kind: str) -> None:
    assert kind_of(channel) == kind
