"""The frame parser against anything a wire can do."""

import numpy as np
import pytest
from cobs import cobs
from fastcrc import crc16
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedside.core.errors import MalformedError
from bedside.firmware_bridge.frames import MAX_FRAME_BYTES, FrameParser, write_frame
from bedside.firmware_bridge.messages import (
    Hello,
    Samples,
    SampleType,
    StreamInfo,
    decode_message,
    encode_message,
)

INFO = StreamInfo("ecg", 2, 250_000, SampleType.INT16, "mV", "MDC_ECG_ELEC_POTL", 0.25)
HELLO = Hello(7, "board-1", "1.0", (INFO,))
CHECKED = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)


def sealed(payload: bytes) -> bytes:
    return cobs.encode(payload + crc16.ibm_3740(payload).to_bytes(2, "little")) + b"\0"


def samples(seq: int) -> Samples:
    return Samples(0, seq, seq * 8_000, np.array([[seq % 99, -1], [0, 5]], np.int16))


def raw(count: int, longest: int, seed: int) -> list[bytes]:
    """Random pieces of random lengths, every third one rich in zeros and in the headers of real messages."""
    generator = np.random.default_rng(seed)
    pieces = [generator.bytes(int(size)) for size in generator.integers(1, longest, count)]
    return [
        piece if number % 3 else piece.replace(piece[:1], b"\0") + (b"", b"\x01\x01", b"\x02\x00")[number % 9 // 3]
        for number, piece in enumerate(pieces)
    ]


def test_garbage_neither_raises_nor_grows_nor_outlives_the_next_zero() -> None:
    parser = FrameParser()
    for piece in raw(8_000, 80, seed=1):
        parser.feed(piece)
        assert parser.pending_bytes <= MAX_FRAME_BYTES
        parser.feed(b"\0")
        assert parser.feed(write_frame(HELLO)) == [HELLO]


@settings(CHECKED, max_examples=300)
@given(st.lists(st.binary(max_size=80), max_size=6))
def test_garbage_that_was_searched_for_does_not_either(pieces: list[bytes]) -> None:
    parser = FrameParser()
    for piece in pieces:
        parser.feed(piece)
        assert parser.pending_bytes <= MAX_FRAME_BYTES
    parser.feed(b"\0")
    assert parser.feed(write_frame(HELLO)) == [HELLO]


def test_a_payload_with_a_good_checksum_is_a_message_or_malformed() -> None:
    parser = FrameParser()
    bodies = raw(7_000, 120, seed=2)
    bodies = [(b"", bytes([1, 1]), bytes([2, 0]))[number % 3] + body for number, body in enumerate(bodies)]
    for body in bodies:
        check_body(body)
        parser.feed(sealed(body))
        parser.feed(write_frame(HELLO))  # a hello that was made up may have announced other streams
    counts = parser.counts
    assert counts.frames + counts.errors == 2 * len(bodies)


@settings(CHECKED, max_examples=300)
@given(st.sampled_from([b"", bytes([1, 1]), bytes([2, 0])]), st.binary(min_size=1, max_size=120))
def test_a_payload_that_was_searched_for_is_one_or_the_other(start: bytes, payload: bytes) -> None:
    check_body(start + payload)


def check_body(body: bytes) -> None:
    """Malformed, or a message that survives its own encoding."""
    try:
        message = decode_message(body, HELLO.streams)
    except MalformedError:
        return
    again = decode_message(encode_message(message), HELLO.streams)
    assert encode_message(again) == encode_message(message)


def test_a_flipped_byte_costs_that_frame_only() -> None:
    generator = np.random.default_rng(3)
    for seq, place, flip in zip(
        generator.integers(0, 2**32, 3_000),
        generator.integers(0, 60, 3_000),
        generator.integers(1, 256, 3_000),
        strict=True,
    ):
        check_flip(int(seq), int(place), int(flip))


def check_flip(seq: int, place: int, flip: int) -> None:
    damaged = bytearray(write_frame(samples(seq)))
    damaged[place % (len(damaged) - 1)] ^= flip
    parser = FrameParser()
    parser.feed(write_frame(HELLO))
    parser.feed(bytes(damaged))
    got = parser.feed(write_frame(samples((seq + 1) % 2**32)))
    assert isinstance(got[-1], Samples)
    assert np.array_equal(got[-1].values, samples((seq + 1) % 2**32).values)
    assert parser.counts.errors >= 1


def test_any_split_gives_the_same_events_and_every_lost_message_is_counted() -> None:
    generator = np.random.default_rng(4)
    for _ in range(2_000):
        cuts = generator.integers(1, 41, generator.integers(0, 13)).tolist()
        check_split(cuts, set(generator.integers(1, 7, generator.integers(0, 7)).tolist()))


def check_split(cuts: list[int], lost: set[int]) -> None:
    wire = write_frame(HELLO) + b"".join(write_frame(samples(n)) for n in range(8) if n not in lost)
    parser, kept, at = FrameParser(), [], 0
    for cut in [*cuts, len(wire)]:
        kept += parser.feed(wire[at : at + cut])
        at += cut
    assert [event.seq for event in kept if isinstance(event, Samples)] == [n for n in range(8) if n not in lost]
    assert parser.counts.missed_messages == len(lost)


def test_an_endless_frame_is_dropped_once_and_counted() -> None:
    parser = FrameParser()
    for _ in range(100):
        parser.feed(b"\x05" * 1000)
        assert parser.pending_bytes <= MAX_FRAME_BYTES
    assert parser.counts.oversize == 1
    assert parser.feed(b"\0" + write_frame(HELLO)) == [HELLO]


def test_samples_before_a_hello_are_counted_and_not_believed() -> None:
    parser = FrameParser()
    assert parser.feed(write_frame(samples(0))) == []
    assert parser.counts.unannounced == 1


def test_a_message_that_cannot_travel_is_refused() -> None:
    with pytest.raises(MalformedError, match="1 to 255"):
        write_frame(Samples(0, 0, 0, np.zeros((256, 2), np.int16)))
