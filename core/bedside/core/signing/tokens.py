"""Enrolment tokens: a signed permission, and the private half that its bearer keeps.

The text form is `bedside1.` and base64url of (32-byte seed, serialised envelope). Only the envelope crosses the wire;
the bearer proves possession by a signature with the seed, so that whoever relays a request cannot enrol anybody else.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

import nacl.signing

from bedside.core.errors import MalformedError, TrustError
from bedside.core.ids import check_id
from bedside.core.limits import MAX_NONCE_BYTES, MAX_REQUEST_BYTES, MAX_TEXT_CHARS
from bedside.core.signing.envelope import (
    DIGEST_BYTES,
    SUITE,
    digest,
    open_signed,
    parse_strict,
    sign_message,
    signature_of,
    verify,
)
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.enrolment_pb2 import EnrolRequest
from bedside.proto.v1.identity_pb2 import CredentialRequest, Role, Token

TOKEN_USE_KIND: Final = "token-use"  # noqa: S105  # a domain name, not a secret
_PREFIX: Final = "bedside1."
_SEED_BYTES: Final = 32
_MAX_TOKEN_CHARS: Final = 4_096


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token as its bearer holds it."""

    seed: bytes
    signed: Signed
    token: Token

    def text(self) -> str:
        """The string that an admin hands over."""
        raw = self.seed + self.signed.SerializeToString(deterministic=True)
        return _PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def mint_token(token: Token, seed: bytes, issuer: nacl.signing.SigningKey) -> BearerToken:
    """Sign `token` for the bearer of `seed` (32 fresh random bytes); fills suite and `token_pk`."""
    filled = Token()
    filled.CopyFrom(token)
    filled.suite = SUITE
    filled.token_pk = bytes(nacl.signing.SigningKey(seed).verify_key)
    return BearerToken(seed, sign_message("token", filled, issuer), filled)


def read_token(text: str) -> BearerToken:
    """Read a token's text form. Signatures are checked by those who know the issuer.

    Raises:
        MalformedError: `bad-token`.
    """
    stripped = "".join(text.split())
    remedy = "copy the whole line that `bedside site token` printed"
    if not stripped.startswith(_PREFIX) or len(stripped) > _MAX_TOKEN_CHARS:
        raise MalformedError("bad-token", "this is not a Bedside token", remedy=remedy)
    body = stripped.removeprefix(_PREFIX)
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        signed = parse_strict(Signed, raw[_SEED_BYTES:])
        token = parse_strict(Token, signed.payload)
        _check_token(token)
    except (ValueError, MalformedError) as error:  # binascii.Error is a ValueError
        raise MalformedError("bad-token", "this token is cut off or damaged", remedy=remedy) from error
    if bytes(nacl.signing.SigningKey(raw[:_SEED_BYTES]).verify_key) != token.token_pk:
        raise MalformedError("bad-token", "this token's halves do not belong together", remedy=remedy)
    return BearerToken(raw[:_SEED_BYTES], signed, token)


def open_token(signed: Signed, issuer_pk: bytes, *, now_s: int) -> Token:
    """Verify a token against its issuer.

    Raises:
        TrustError: `bad-signature` or `token-expired`.
        MalformedError: when it is not well-formed.
    """
    token = parse_strict(Token, open_signed("token", signed, issuer_pk))
    _check_token(token)
    if now_s > token.not_after_s:
        raise TrustError("token-expired", "this token has expired", remedy="ask the site's admin for a new one")
    return token


def use_token(bearer: BearerToken, request: CredentialRequest, key: nacl.signing.SigningKey) -> EnrolRequest:
    """Sign a request with the new key and with the token's private half."""
    signed = sign_message("credential-request", request, key)
    by_token = signature_of(TOKEN_USE_KIND, signed.payload, nacl.signing.SigningKey(bearer.seed))
    return EnrolRequest(request=signed, token_signature=by_token)


def open_request(enrol: EnrolRequest) -> tuple[CredentialRequest, Signed]:
    """Verify possession of the new key and of the token; returns the request and its token, issuer unchecked.

    Raises:
        TrustError: `bad-signature`.
        MalformedError: when it is not well-formed; `bad-message` when it is over `MAX_REQUEST_BYTES`.
    """
    if enrol.ByteSize() > MAX_REQUEST_BYTES:  # all of it: what is stored and passed on has fields of any version
        raise MalformedError("bad-message", f"a credential request is over the limit of {MAX_REQUEST_BYTES} bytes")
    claimed = parse_strict(CredentialRequest, enrol.request.payload)
    request = parse_strict(CredentialRequest, open_signed("credential-request", enrol.request, claimed.sign_pk))
    check_id(request.site, "site")
    lengths_hold = len(request.tls_key_digest) == DIGEST_BYTES and len(request.nonce) <= MAX_NONCE_BYTES
    if not lengths_hold or len(request.label) > MAX_TEXT_CHARS:
        raise MalformedError("bad-request", "a credential request has a field of the wrong length")
    signed_token = parse_strict(Signed, request.token)
    token = parse_strict(Token, signed_token.payload)
    verify(TOKEN_USE_KIND, enrol.request.payload, enrol.token_signature, token.token_pk)
    if (request.site, request.role, request.federation) != (token.site, token.role, token.federation):
        raise TrustError("token-mismatch", "this token is for another site, role or federation")
    return request, signed_token


def token_digest(signed: Signed) -> bytes:
    """How a credential and the count of uses refer to a token."""
    return digest(signed.payload)


def _check_token(token: Token) -> None:
    check_id(token.site, "site")
    check_id(token.federation, "federation")
    if token.suite != SUITE or token.role not in (Role.ROLE_DEVICE, Role.ROLE_TRUSTEE) or token.uses < 1:
        raise MalformedError("bad-token", "this token's suite, role or number of uses is not valid")
    lengths = {len(token.token_pk), len(token.root_pk), len(token.ca_digest), len(token.authority_pk)}
    if lengths != {DIGEST_BYTES} or len(token.enrolment_address) > MAX_TEXT_CHARS:
        raise MalformedError("bad-token", "this token's keys have the wrong length")
