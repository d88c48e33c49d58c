"""MLLP as the field sends it."""

import pytest

from bedside.agent.formats.hl7.mllp import MllpDecoder, frame
from bedside.core.errors import MalformedError

A, B = b"MSH|^~\\&|A\rPV1|1\r", b"MSH|^~\\&|B\r"


@pytest.mark.parametrize(
    "wire",
    [
        frame(A) + frame(B),
        A + b"\x1c\r" + frame(B),
        A + b"\x1c\r" + B + b"\x1c\r",
        b"\x0b" + A + b"\x1c\n" + b"\x0b" + B + b"\x1c\n",
        b"\x0b" + A + b"\x1c\r\n" + b"\x0b" + B + b"\x1c",
        b"\r\n" + frame(A) + b"\n\n" + frame(B),
        b"\x0b" + frame(A) + frame(B),
    ],
    ids=["sound", "no-first-start", "no-start", "lf", "crlf-and-nothing", "blank-lines", "two-starts"],
)
@pytest.mark.parametrize("step", [1, 2, 7, 1_000])
def test_messages_are_found_however_they_are_framed_and_cut(wire, step) -> None:
    decoder = MllpDecoder()
    found = [one for at in range(0, len(wire), step) for one in decoder.feed(wire[at : at + step])]
    assert found == [A, B]
    assert not decoder.inside
    assert decoder.broken == 0


def test_a_message_that_is_cut_off_by_the_next_is_counted_and_the_next_is_read() -> None:
    decoder = MllpDecoder()
    assert decoder.feed(b"\x0bMSH|half") == []
    assert decoder.inside
    assert decoder.feed(frame(B) + b"\x0bMSH|x\x0b" + B + b"\x1c\r") == [B, B]
    assert decoder.broken == 2


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\x16\x03\x01\x02\x00", "mllp-noise"),
        (b"GET / HTTP/1.1\r\n", "mllp-noise"),
        (b"\x0b" + b"M" * 101, "mllp-size"),
        (b"MSH" + b"M" * 98, "mllp-size"),
    ],
)
def test_noise_and_endless_messages_are_refused_as_soon_as_they_are_seen(wire, code) -> None:
    with pytest.raises(MalformedError) as caught:
        MllpDecoder(max_bytes=100).feed(wire)
    assert caught.value.code == code
    assert MllpDecoder(max_bytes=100).feed(b"\x0b" + b"M" * 100 + b"\x1c") == [b"M" * 100]


def test_messages_before_the_noise_are_read_and_nothing_behind_it() -> None:
    decoder = MllpDecoder()
    assert decoder.feed(frame(A) + b"MSX" + frame(B)) == [A]
    assert decoder.fault is not None
    with pytest.raises(MalformedError, match="mllp-noise"):
        decoder.feed(frame(B))
