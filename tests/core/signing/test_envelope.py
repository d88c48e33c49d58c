from __future__ import annotations

import nacl.signing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.errors import BedsideError, MalformedError, TrustError
from bedside.core.signing.envelope import open_signed, parse_strict, sign, sign_message
from bedside.proto.v1 import device_pb2, identity_pb2, plan_pb2, round_pb2
from bedside.proto.v1.common_pb2 import Signed

KEY = nacl.signing.SigningKey(b"k" * 32)
PK = bytes(KEY.verify_key)


def test_what_was_signed_comes_back_as_it_was():
    assert open_signed("plan", sign("plan", b"payload", KEY), PK) == b"payload"


def test_a_signature_of_one_kind_is_not_one_of_another():
    signed = Signed.FromString(sign("vote", b"payload", KEY))
    with pytest.raises(TrustError):
        open_signed("answer", signed, PK)
    signed.kind = "answer"
    with pytest.raises(TrustError):
        open_signed("answer", signed, PK)


def test_another_suite_is_refused_even_with_a_good_signature():
    signed = Signed.FromString(sign("vote", b"payload", KEY))
    signed.suite = 2
    with pytest.raises(TrustError) as caught:
        open_signed("vote", signed, PK)
    assert caught.value.code == "bad-suite"


@given(bit=st.integers(0, 8 * 111 - 1))
@settings(max_examples=300, deadline=None)
def test_no_flipped_bit_survives(bit):
    raw = bytearray(sign("vote", b"some payload of a vote", KEY))
    at = bit % (len(raw) * 8)
    raw[at // 8] ^= 1 << at % 8
    with pytest.raises(BedsideError):
        open_signed("vote", bytes(raw), PK)


def test_an_unknown_field_is_refused():
    plan = plan_pb2.Plan(task="watch").SerializeToString()
    assert parse_strict(plan_pb2.Plan, plan).task == "watch"
    with pytest.raises(MalformedError):
        parse_strict(plan_pb2.Plan, plan + b"\xfa\x7f\x01x")


def test_a_repeated_scalar_and_an_explicit_default_are_refused():
    with pytest.raises(MalformedError):
        parse_strict(plan_pb2.Plan, b"\x08\x01\x08\x01")
    with pytest.raises(MalformedError):
        parse_strict(plan_pb2.Plan, b"\x08\x00")
    with pytest.raises(MalformedError):
        parse_strict(plan_pb2.Plan, b"\x08\x81\x00")


@pytest.mark.parametrize(
    "message_type",
    [
        plan_pb2.Plan,
        round_pb2.Opening,
        round_pb2.Header,
        round_pb2.Vote,
        round_pb2.Answer,
        round_pb2.Result,
        identity_pb2.Credential,
        identity_pb2.Roster,
        device_pb2.Heartbeat,
        Signed,
    ],
)
@given(data=st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_parse_or_are_malformed(message_type, data):
    try:
        message = parse_strict(message_type, data)
    except MalformedError:
        return
    assert message.SerializeToString(deterministic=True) == data


@pytest.mark.parametrize(
    "message",
    [
        plan_pb2.Plan(round_number=2**63),
        plan_pb2.Plan(log_size=2**64 - 1),
        plan_pb2.Plan(layout=plan_pb2.Layout(segments=[plan_pb2.Segment(cap=1), plan_pb2.Segment(cap=2**63)])),
        round_pb2.Result(round_number=2**63),
        round_pb2.Opening(chain=round_pb2.Chain(index=2**63)),
        identity_pb2.Roster(version=2**63),
        identity_pb2.Federation(version=2**63),
    ],
)
def test_an_integer_that_no_database_holds_is_malformed(message):
    with pytest.raises(MalformedError, match="is above"):
        parse_strict(type(message), message.SerializeToString(deterministic=True))


def test_the_largest_integer_that_a_database_holds_is_read():
    data = plan_pb2.Plan(round_number=2**63 - 1).SerializeToString()
    assert parse_strict(plan_pb2.Plan, data).round_number == 2**63 - 1


def test_a_message_over_the_limit_is_refused_before_parsing():
    with pytest.raises(MalformedError, match="over the limit"):
        parse_strict(plan_pb2.Plan, b"\0" * 11, 10)


def test_signing_a_message_signs_its_one_encoding():
    signed = sign_message("plan", plan_pb2.Plan(task="watch"), KEY)
    assert parse_strict(plan_pb2.Plan, open_signed("plan", signed, PK)).task == "watch"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (identity_pb2.Roster(version=1 << 63), "Roster.version"),
        (identity_pb2.Federation(version=1 << 63), "Federation.version"),
        (round_pb2.Opening(chain=round_pb2.Chain(index=1 << 63)), "Chain.index"),
        (device_pb2.Heartbeat(buffer_bytes=1 << 63), "Heartbeat.buffer_bytes"),
        (identity_pb2.Credential(role=99), "Credential.role"),
        (round_pb2.Closed(reason=99), "Closed.reason"),
        (round_pb2.Result(cohorts=[round_pb2.CohortResult(outcome=99)]), "CohortResult.outcome"),
        (plan_pb2.Layout(segments=[plan_pb2.Segment(), plan_pb2.Segment(kind=99)]), "Segment.kind"),
        (device_pb2.Heartbeat(components=[device_pb2.ComponentHealth(state=99)]), "ComponentHealth.state"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_out_of_bounds_are_refused_at_any_depth(message, field):
    with pytest.raises(MalformedError, match=field):
        parse_strict(type(message), message.SerializeToString(deterministic=True))


def test_the_largest_integer_and_the_last_kind_are_parsed():
    told = round_pb2.Closed(reason=round_pb2.CLOSE_REASON_LOST, chain=round_pb2.Chain(index=(1 << 63) - 1))
    assert parse_strict(round_pb2.Closed, told.SerializeToString(deterministic=True)) == told
