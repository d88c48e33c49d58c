"""Bytes that are almost a signed message: flipped, encoded otherwise, or replayed where they do not belong."""

from __future__ import annotations

from collections.abc import Iterator

import captured
import pytest
from captured import OPENERS, Captured, Place, one_of_each, traffic
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.internal.encoder import _VarintBytes
from google.protobuf.message import DecodeError

from bedside.core.errors import BedsideError
from bedside.core.signing import envelope
from bedside.proto.v1.common_pb2 import Signed

KINDS = (
    "plan", "opening", "vote", "answer", "closed", "refusal", "header", "credential", "roster", "federation",
    "heartbeat", "token", "result", "bundle",
)  # fmt: skip
VARINT, DELIMITED = 0, 2
UNKNOWN = b"\xfa\x7f\x01x"
_INTEGERS = frozenset(
    {
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_ENUM,
        FieldDescriptor.TYPE_BOOL,
    }
)


@pytest.fixture
def messages_of(field) -> dict[str, Captured]:
    bench = field.bench()
    return {message.kind: message for message in one_of_each(field.world, bench.manifest, bench.fields)}


def accepted(message: Captured, signed: Signed) -> bool:
    """Whether it is believed; any error but our own is a failure of the test."""
    try:
        message.accept(signed)
    except BedsideError:
        return False
    return True


def flipped(data: bytes) -> Iterator[bytes]:
    raw = bytearray(data)
    for place in range(len(raw)):
        for bit in range(8):
            raw[place] ^= 1 << bit
            yield bytes(raw)
            raw[place] ^= 1 << bit


def flips_believed(message: Captured) -> int:
    """How many of the envelopes with one bit flipped are believed, as a receiver of the wire reads them."""
    believed = 0
    for raw in flipped(message.signed.SerializeToString()):
        try:
            signed = Signed.FromString(raw)
        except DecodeError:
            continue
        believed += accepted(message, signed)
    return believed


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_is_accepted(messages_of, kind) -> None:
    assert set(messages_of) == set(KINDS)
    message = messages_of[kind]
    assert accepted(message, message.signed)
    assert flips_believed(message) == 0


def test_without_signatures_flipped_bits_would_be_accepted(messages_of, monkeypatch) -> None:
    monkeypatch.setattr(envelope, "verify", lambda *_: None)
    assert flips_believed(messages_of["vote"]) > 512


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_is_for_one_kind_only(messages_of, kind) -> None:
    message = messages_of[kind]
    for other in KINDS:
        moved = Signed()
        moved.CopyFrom(message.signed)
        moved.kind = other
        believed = [name for name, receiver in messages_of.items() if accepted(receiver, moved)]
        assert believed == ([kind] if other == kind else [])


# Other encodings of the same message, under a good signature


def fields_of(data: bytes) -> list[tuple[int, int, bytes, bytes]]:
    """(number, wire type, tag bytes, value bytes with their length) of each top-level field."""
    found, at = [], 0
    while at < len(data):
        tag, after = _varint(data, at)
        end = _varint(data, after)[1]
        if tag & 7 == DELIMITED:
            end += _varint(data, after)[0]
        found.append((tag >> 3, tag & 7, data[at:after], data[after:end]))
        at = end
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _long(varint: bytes) -> bytes:
    return varint[:-1] + bytes([varint[-1] | 0x80, 0])


def encodings(message: Captured) -> Iterator[tuple[str, bytes]]:
    """The same content, or more, in other bytes."""
    data, parts = message.payload, fields_of(message.payload)
    joined = [tag + value for _, _, tag, value in parts]
    yield "an unknown field at the end", data + UNKNOWN
    yield "an unknown field at the start", UNKNOWN + data
    yield "fields in another order", b"".join(reversed(joined))
    yield "the last field first", b"".join([joined[-1], *joined[:-1]])
    for place, (number, wire, tag, value) in enumerate(parts):
        before, behind = b"".join(joined[:place]), b"".join(joined[place + 1 :])
        descriptor = message.message_type.DESCRIPTOR.fields_by_number[number]
        yield f"a long tag of {number}", before + _long(tag) + value + behind
        if wire == VARINT:
            yield f"a long varint in {number}", before + tag + _long(value) + behind
        else:
            _length, start = _varint(value, 0)
            yield f"a long length of {number}", before + tag + _long(value[:start]) + value[start:] + behind
            if descriptor.message_type is not None:
                inner = value[start:] + UNKNOWN
                yield f"an unknown field inside {number}", before + tag + _VarintBytes(len(inner)) + inner + behind
        if not descriptor.is_repeated:
            yield f"field {number} twice", before + joined[place] * 2 + behind
    present = {number for number, *_ in parts}
    for descriptor in message.message_type.DESCRIPTOR.fields:
        if descriptor.number not in present and descriptor.type in _INTEGERS and not descriptor.has_presence:
            yield f"an explicit zero in {descriptor.number}", data + _VarintBytes(descriptor.number << 3) + b"\0"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bundle"])
def test_no_other_encoding_is_accepted_even_under_a_good_signature(messages_of, kind) -> None:
    message = messages_of[kind]
    tried = list(encodings(message))
    assert len(tried) > 15
    assert [name for name, data in tried if data == message.payload] == []
    assert [name for name, data in tried if accepted(message, message.signed_as(data))] == []


def test_without_strict_parsing_other_encodings_would_be_accepted(messages_of, monkeypatch) -> None:
    def lax(message_type, data, max_bytes=0):
        message = message_type()
        message.ParseFromString(data)
        return message

    for module in (captured.messages, envelope):
        monkeypatch.setattr(module, "parse_strict", lax)
    message = messages_of["vote"]
    assert sum(accepted(message, message.signed_as(data)) for _, data in encodings(message)) > 15


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b" ",
        lambda data: data.replace(b'"name"', b'"unknown":1,"name"', 1),
        lambda data: data.replace(b'"version":"1"', b'"version":"1","version":"1"', 1),
        lambda data: data.replace(b",", b", ", 1),
    ],
)
def test_no_other_writing_of_a_manifest_is_accepted(messages_of, change) -> None:
    message = messages_of["bundle"]
    written = change(message.payload)
    assert written != message.payload
    assert not accepted(message, message.signed_as(written))


# Replays


def believed_at(place: Place, signed: Signed) -> bool:
    try:
        OPENERS[place.kind](signed, place.sender.credential, place.plan, place.cohort)
    except BedsideError:
        return False
    return True


def elsewhere(home: Place, places: list[Place], number: int) -> Iterator[Place]:
    """Other places for a message: another round, cohort, sender and kind, one thing at a time, and any two others."""
    for at in (number + 97, number + 389):
        other = places[at % len(places)]
        yield Place(home.kind, other.plan, other.cohort, other.sender)
        yield Place(home.kind, other.plan, home.cohort, home.sender)
        yield Place(home.kind, home.plan, home.cohort, other.sender)
        yield other
    yield Place(home.kind, home.plan, 1 - home.cohort, home.sender)
    for kind in OPENERS:
        yield Place(kind, home.plan, home.cohort, home.sender)


def test_a_thousand_captured_messages_are_believed_where_they_belong_and_nowhere_else(world) -> None:
    heard = traffic(world, 33)
    places = [place for place, _ in heard]
    assert len(heard) >= 1_000
    tried = 0
    for number, (home, signed) in enumerate(heard):
        assert believed_at(home, signed)
        for place in elsewhere(home, places, number):
            if place != home:
                assert not believed_at(place, signed), (home.kind, place.kind)
                moved = Signed(suite=1, kind=place.kind, payload=signed.payload, signature=signed.signature)
                assert not believed_at(place, moved), (home.kind, place.kind)
                tried += 1
    assert tried > 10_000
