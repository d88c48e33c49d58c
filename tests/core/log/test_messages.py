"""Entries and signed words of the log: strict, bounded, and of this federation only."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.errors import BedsideError, MalformedError
from bedside.core.log.entries import KINDS, UNTYPED, encode_entry, read_entry
from bedside.core.log.messages import (
    open_checkpoint,
    open_cosignature,
    open_verdict,
    sign_checkpoint,
    sign_cosignature,
)
from bedside.core.signing.envelope import SUITE, digest, sign_message
from bedside.proto.v1.audit_pb2 import LogCheckpoint, LogEntry, Verdict

ROOT = b"r" * 32
BY_TRUSTEES = {"opening", "refusal", "vote", "answer", "closed", "verdict"}


def code(call, *args):
    with pytest.raises(BedsideError) as caught:
        call(*args)
    return caught.value.code


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_is_read_as_it_was_written(kind):
    who = b"c" * 32 if kind in BY_TRUSTEES else b""
    entry = read_entry(encode_entry(kind, b"d" * 32, b"p" * 32, cohort=3, credential_digest=who))
    assert (entry.kind, entry.payload_digest, entry.plan_digest) == (KINDS[kind], b"d" * 32, b"p" * 32)
    assert (entry.cohort, entry.credential_digest) == (3, who)
    other = b"" if who else b"c" * 32
    assert code(read_entry, encode_entry(kind, b"d" * 32, b"p" * 32, credential_digest=other)) == "bad-entry"


def test_an_entry_from_before_entries_had_types_is_its_digest():
    assert read_entry(b"d" * 32) == LogEntry(kind=UNTYPED, payload_digest=b"d" * 32)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_other_leaf_raises_malformed_error_only(leaf):
    try:
        entry = read_entry(leaf)
    except MalformedError:
        return
    assert entry.SerializeToString(deterministic=True) == leaf or leaf == entry.payload_digest


def test_a_checkpoint_is_of_this_coordinator_and_federation(world):
    pk = bytes(world.coordinator.verify_key)
    signed = sign_checkpoint("test", 7, ROOT, 1, world.coordinator)
    assert open_checkpoint(signed, pk, "test").size == 7
    assert code(open_checkpoint, signed, pk, "other") == "other-federation"
    assert code(open_checkpoint, signed, bytes(world.author.verify_key), "test") == "bad-signature"
    assert code(open_checkpoint, sign_checkpoint("test", 7, b"", 1, world.coordinator), pk, "test") == "bad-checkpoint"
    old = sign_message("log-checkpoint", LogCheckpoint(federation="test", root=ROOT), world.coordinator)
    assert code(open_checkpoint, old, pk, "test") == "bad-suite"


def test_a_cosignature_is_its_senders_and_is_no_checkpoint(world):
    trustee, other = world.sites["alder"].trustee, world.sites["birch"].trustee
    checkpoint = LogCheckpoint(suite=SUITE, federation="test", size=7, root=ROOT)
    signed = sign_cosignature(checkpoint, trustee.credential, 1, trustee.key)
    assert open_cosignature(signed, trustee.credential, "test").root == ROOT
    assert code(open_cosignature, signed, other.credential, "test") == "bad-signature"
    borrowed = sign_cosignature(checkpoint, other.credential, 1, trustee.key)
    assert code(open_cosignature, borrowed, trustee.credential, "test") == "wrong-sender"
    assert code(open_checkpoint, signed, trustee.credential.sign_pk, "test") == "bad-signature"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"holds": False, "code": "sum"}, ""),
        ({"holds": False}, "bad-verdict"),
        ({"code": "sum"}, "bad-verdict"),
        ({"plan_digest": b"short"}, "bad-verdict"),
        ({"sentence": "x" * 401}, "bad-verdict"),
        ({"federation": "other"}, "other-federation"),
        ({"credential_digest": b"c" * 32}, "wrong-sender"),
    ],
)
def test_a_verdict_holds_or_names_what_does_not(world, changes, expected):
    trustee = world.sites["alder"].trustee
    told = {
        "suite": SUITE,
        "federation": "test",
        "plan_digest": digest(b"p"),
        "result_digest": digest(b"r"),
        "credential_digest": trustee.credential.digest,
        "holds": True,
    }
    signed = sign_message("verdict", Verdict(**{**told, **changes}), trustee.key)
    if expected:
        assert code(open_verdict, signed, trustee.credential, "test") == expected
    else:
        assert open_verdict(signed, trustee.credential, "test").plan_digest == digest(b"p")
