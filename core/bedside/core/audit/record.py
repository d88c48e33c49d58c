"""The record of a round and the blobs that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

from blake3 import blake3

from bedside.core.audit.report import BrokenError
from bedside.core.errors import BedsideError, MalformedError, UnavailableError
from bedside.core.limits import MAX_BLOB_BYTES
from bedside.core.signing.envelope import DIGEST_BYTES, digest, parse_strict
from bedside.proto.v1.audit_pb2 import RoundRecord
from bedside.proto.v1.plan_pb2 import Plan
from bedside.proto.v1.round_pb2 import Answer, Header, Result
from bedside.proto.v1.trustee_pb2 import HeaderSet

MAX_RECORD_BYTES: Final = 64 << 20
"""Bytes of the signed messages of a round without its header sets: 1,024 cohorts of five trustees stay below."""

MAX_HEADERS_BYTES: Final = 64 << 20
"""Bytes of one set of headers: 10,000 devices at five trustees stay below."""

MAX_BLOBS: Final = 100_000
"""Blobs of one round: ten cohorts of 10,000 devices."""

Family = Literal["blake2b", "blake3"]


class BlobName(NamedTuple):
    """How a blob is named: BLAKE3 for uploads, answers and sums, BLAKE2b-256 for all else."""

    family: Family
    digest: bytes


ReadBlob = Callable[[BlobName], bytes]
"""Brings the bytes of a blob; what it returns is not believed. Raises BedsideError when there is none."""


def read_record(data: bytes) -> RoundRecord:
    """Parse a record; nothing in it is verified by that. Raises MalformedError `bad-message`."""
    return parse_strict(RoundRecord, data, MAX_RECORD_BYTES)


def checked_blob(read: ReadBlob, name: BlobName, code: str, what: str) -> bytes:
    """The bytes of a blob whose digest holds.

    Raises:
        BrokenError: `code`, when the blob is missing or altered.
        UnavailableError: the reader cannot say now; that is no finding.
    """
    if len(name.digest) != DIGEST_BYTES:
        raise BrokenError(code, f"{what} is not named by a whole digest")
    try:
        data = read(name)
    except UnavailableError:
        raise
    except BedsideError as error:
        raise BrokenError(code, f"{what} cannot be read: {error.sentence}") from error
    found = digest(data) if name.family == "blake2b" else blake3(data).digest()
    if found != name.digest:
        raise BrokenError(code, f"the stored bytes of {what} do not have the digest {name.digest.hex()[:16]}")
    return data


def blobs_of(record: RoundRecord, read: ReadBlob) -> Iterator[BlobName]:
    """Every blob that an audit of this record reads, once, in the order of first need.

    Raises:
        MalformedError: `bad-message` where the record does not parse, or `record-too-large`.
        BedsideError: as `read`, when a set of headers is missing.
    """
    seen: set[BlobName] = set()
    for name in _named(record, read):
        if name.digest and name not in seen:
            seen.add(name)
            if len(seen) > MAX_BLOBS:
                raise MalformedError("record-too-large", f"a round has at most {MAX_BLOBS} blobs")
            yield name


def blob_limit(name: BlobName) -> int:
    """The most bytes that a blob may have."""
    return MAX_BLOB_BYTES if len(name.digest) == DIGEST_BYTES else 0


def _named(record: RoundRecord, read: ReadBlob) -> Iterator[BlobName]:
    plan = parse_strict(Plan, record.plan.payload)
    result = parse_strict(Result, record.result.payload)
    for cohort in record.cohorts:
        if cohort.HasField("headers"):
            name = BlobName("blake2b", cohort.headers.digest)
            yield name
            for entry in parse_strict(HeaderSet, read(name), MAX_HEADERS_BYTES).entries:
                yield BlobName("blake3", parse_strict(Header, entry.header.payload).upload_digest)
        for signed in cohort.answers:
            yield BlobName("blake3", parse_strict(Answer, signed.payload).mask_sum_digest)
    for outcome in result.cohorts:
        yield BlobName("blake3", outcome.sum_digest)
    previous = parse_strict(Result, record.previous_result.payload)
    for ref in (plan.checkpoint, previous.optimiser_state, result.checkpoint, result.optimiser_state):
        yield BlobName("blake2b", ref.digest)
