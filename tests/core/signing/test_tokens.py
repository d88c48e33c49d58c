from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.errors import BedsideError, MalformedError
from bedside.core.signing.envelope import SUITE, digest
from bedside.core.signing.tokens import mint_token, open_request, open_token, read_token, use_token
from bedside.proto.v1 import identity_pb2

NOW_S = 1_800_000_000


@pytest.fixture
def bearer(world):
    alder = world.sites["alder"]
    token = identity_pb2.Token(
        federation="test",
        site="alder",
        role=identity_pb2.ROLE_DEVICE,
        uses=1,
        issued_at_s=NOW_S,
        not_after_s=NOW_S + 3600,
        root_pk=bytes(world.root.verify_key),
        ca_digest=b"c" * 32,
        authority_pk=bytes(alder.authority.verify_key),
        enrolment_address="localhost:1",
    )
    return mint_token(token, b"s" * 32, alder.authority)


def request_for(bearer, key, **changes):
    fields = {
        "suite": SUITE,
        "federation": "test",
        "site": "alder",
        "role": identity_pb2.ROLE_DEVICE,
        "sign_pk": bytes(key.verify_key),
        "tls_key_digest": digest(b"tls"),
        "requested_at_s": NOW_S,
        "nonce": b"n" * 16,
        "token": bearer.signed.SerializeToString(deterministic=True),
    }
    return identity_pb2.CredentialRequest(**{**fields, **changes})


def code(call, *args, **kwargs):
    with pytest.raises(BedsideError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def test_a_tokens_text_form_is_read_back_also_when_wrapped_by_a_mail_client(bearer):
    text = bearer.text()
    assert read_token(text) == bearer
    assert read_token("\n".join(text[i : i + 60] for i in range(0, len(text), 60))) == bearer


def test_a_token_is_valid_under_its_issuer_until_it_expires(bearer, world):
    authority = bytes(world.sites["alder"].authority.verify_key)
    assert open_token(bearer.signed, authority, now_s=NOW_S + 3600).site == "alder"
    assert code(open_token, bearer.signed, authority, now_s=NOW_S + 3601) == "token-expired"
    assert code(open_token, bearer.signed, bytes(world.coordinator.verify_key), now_s=NOW_S) == "bad-signature"


def test_a_request_proves_both_keys(bearer, world):
    key = world.new_key()
    request, signed_token = open_request(use_token(bearer, request_for(bearer, key), key))
    assert request.sign_pk == bytes(key.verify_key)
    assert signed_token == bearer.signed


def test_who_relays_a_request_cannot_put_another_key_into_it(bearer, world):
    honest, thief = world.new_key(), world.new_key()
    seen = use_token(bearer, request_for(bearer, honest), honest)
    forged = use_token(bearer, request_for(bearer, thief), thief)
    forged.token_signature = seen.token_signature
    assert code(open_request, forged) == "bad-signature"


def test_a_token_for_a_device_does_not_make_a_trustee(bearer, world):
    key = world.new_key()
    enrol = use_token(bearer, request_for(bearer, key, role=identity_pb2.ROLE_TRUSTEE), key)
    assert code(open_request, enrol) == "token-mismatch"
    assert code(open_request, use_token(bearer, request_for(bearer, key, site="birch"), key)) == "token-mismatch"


def test_a_request_is_bounded_with_whatever_stands_beside_what_was_signed(bearer, world):
    key = world.new_key()
    padded = use_token(bearer, request_for(bearer, key), key)
    padded.MergeFromString(b"\xfa\x3f\x80\x80\x01" + bytes(1 << 14))  # a field of a later version, 16 KiB long
    assert code(open_request, padded) == "bad-message"


@given(text=st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_token_or_malformed(text):
    for candidate in (text, "bedside1." + text):
        with pytest.raises(MalformedError):
            read_token(candidate)


def test_a_cut_token_says_what_to_do(bearer):
    with pytest.raises(MalformedError) as caught:
        read_token(bearer.text()[:-20])
    assert "bedside site token" in caught.value.remedy


@pytest.mark.parametrize("text", ["bedside1.", "bedside1.AAAA", "bedside1." + "A" * 43])
def test_a_token_of_which_little_is_left_is_cut_off_and_nothing_else(text):
    with pytest.raises(MalformedError, match="cut off or damaged") as caught:
        read_token(text)
    assert caught.value.code == "bad-token"


def test_a_request_is_bounded(bearer, world):
    key = world.new_key()
    sized = [use_token(bearer, request_for(bearer, key, nonce=b"n" * size), key) for size in (32, 33, 16 << 10)]
    open_request(sized[0])
    assert code(open_request, sized[1]) == "bad-request"
    assert code(open_request, sized[2]) == "bad-message"
