"""The exported tar: what is written is read, and nothing else is."""

from __future__ import annotations

import io
import tarfile

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.audit.archive import RECORD_NAME, index_archive, member_name, packed
from bedside.core.audit.record import BlobName
from bedside.core.errors import MalformedError
from bedside.core.signing.envelope import digest
from bedside.core.ustar import BLOCK_BYTES, END

BLOBS = [b"", b"x", b"y" * 512, b"z" * 1000]


def name_of(data):
    return BlobName("blake3", blake3(data).digest()) if len(data) % 2 else BlobName("blake2b", digest(data))


def write(record=b"the record", blobs=BLOBS):
    parts = [b"".join(packed(RECORD_NAME, record))]
    parts += [b"".join(packed(member_name(name_of(blob)), blob)) for blob in blobs]
    return b"".join([*parts, END])


def read(data):
    index = index_archive(lambda offset, count: data[offset : offset + count], len(data))

    def at(span):
        return data[span.offset : span.offset + span.size_bytes]

    return at(index.record), {name: at(span) for name, span in index.blobs.items()}


def refused(data):
    with pytest.raises(MalformedError) as caught:
        read(data)
    return caught.value.code


def test_what_is_written_is_read_and_any_tar_program_lists_it():
    record, blobs = read(write())
    assert record == b"the record"
    assert blobs == {name_of(blob): blob for blob in BLOBS}
    with tarfile.open(fileobj=io.BytesIO(write())) as tar:
        assert tar.getnames()[0] == RECORD_NAME
        assert all(member.isfile() for member in tar.getmembers())


@given(st.lists(st.binary(max_size=700), unique=True, max_size=6), st.binary(max_size=700))
@settings(max_examples=60, deadline=None)
def test_every_round_goes_through_the_file_unchanged(blobs, record):
    assert read(write(record, blobs)) == (record, {name_of(blob): blob for blob in blobs})


@given(st.integers(0, len(write()) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_an_altered_byte_is_refused_or_is_content_that_the_audit_will_check(at, change):
    data = bytearray(write())
    data[at] ^= change
    try:
        record, blobs = read(bytes(data))
    except MalformedError:
        return
    named = {name: blob for name, blob in blobs.items() if name == name_of(blob) or name.digest == digest(blob)}
    assert record != b"the record" or named != blobs or blobs.keys() != {name_of(blob) for blob in BLOBS}


@given(st.integers(0, len(write()) - 1))
@settings(max_examples=100, deadline=None)
def test_a_file_that_ends_early_is_refused(end):
    assert refused(write()[:end]) == "bad-archive"


@given(st.binary(max_size=3000))
@settings(max_examples=200, deadline=None)
def test_garbage_is_refused_with_the_one_documented_error(data):
    assert refused(data) == "bad-archive"


@given(st.binary(min_size=BLOCK_BYTES, max_size=BLOCK_BYTES))
@settings(max_examples=200, deadline=None)
def test_garbage_in_the_place_of_a_header_is_refused(block):
    whole = write(blobs=[])
    at = 2 * BLOCK_BYTES
    assert refused(whole[:at] + block + whole[at:]) == "bad-archive"


def test_names_that_lead_elsewhere_and_other_kinds_of_entries_are_refused():
    start = b"".join(packed(RECORD_NAME, b"r"))
    for name in ("../../etc/passwd", "/blake3/" + "0" * 64, "blake3/" + "0" * 63, "BLAKE3/" + "0" * 64, RECORD_NAME):
        assert refused(start + b"".join(packed(name, b"x")) + END) == "bad-archive"
    twice = b"".join(packed(member_name(name_of(b"x")), b"x"))
    assert refused(start + twice + twice + END) == "bad-archive"
    assert refused(write() + b"\0") == "bad-archive"
    link = bytearray(write())
    link[156] = ord("2")
    assert refused(bytes(link)) == "bad-archive"


def test_a_size_beyond_the_limit_is_refused_before_anything_is_read():
    from bedside.core.ustar import header

    asked = []

    def read_at(offset, count):
        asked.append(count)
        return header(RECORD_NAME, 1 << 32)[:count] if offset == 0 else bytes(count)

    with pytest.raises(MalformedError):
        index_archive(read_at, 1 << 33)
    assert max(asked) <= len(END)
