"""Signatures over opaque bytes.

Invariants:
    * What is signed is (domain `bedside/v1/<kind>`, suite, length, payload): a signature of one kind is never valid
      for another, nor under another suite.
    * Payload bytes are verified and stored as they came; nothing is serialised again to be verified.
    * A signed payload parses strictly: unknown fields, repeated scalars, explicit defaults and over-long varints are
      refused, because an old reader must not approve a field that a new one obeys.
    * So are integers that no database column holds, and enum values that this version does not know, at any depth:
      what was parsed can be stored and named.

Source: DESIGN section 5; Dead Simple Signing Envelope (github.com/secure-systems-lab/dsse) for the framing idea.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Final, TypeVar

import nacl.exceptions
import nacl.signing
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from bedside.core.errors import MalformedError, TrustError
from bedside.core.limits import MAX_SIGNED_BYTES, MAX_WIRE_INTEGER
from bedside.proto.v1.common_pb2 import Signed

SUITE: Final = 1
"""X25519 + ML-KEM-768, BLAKE2b, BLAKE3, ChaCha20, Ed25519."""

DIGEST_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_MAX_KIND_CHARS: Final = 40

_BAD_MESSAGE_REMEDY: Final = "fetch it again; if it comes back, the sender may run another version"

Parsed = TypeVar("Parsed", bound=Message)


def digest(data: bytes) -> bytes:
    """BLAKE2b-256 of `data`: the name of every signed payload, manifest and model blob."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def sign_message(kind: str, message: Message, key: nacl.signing.SigningKey) -> Signed:
    """Serialise `message` once, deterministically, and sign those bytes as `kind`."""
    return _sign(kind, message.SerializeToString(deterministic=True), key)


def sign(kind: str, payload: bytes, key: nacl.signing.SigningKey) -> bytes:
    """Sign `payload` as `kind`; the serialised envelope."""
    return _sign(kind, payload, key).SerializeToString(deterministic=True)


def _sign(kind: str, payload: bytes, key: nacl.signing.SigningKey) -> Signed:
    signature = key.sign(_signing_input(kind, SUITE, payload)).signature
    return Signed(suite=SUITE, kind=kind, payload=payload, signature=signature)


def open_signed(kind: str, signed: Signed | bytes, verify_pk: bytes) -> bytes:
    """Return the payload when it carries a signature of `kind` by `verify_pk`.

    Args:
        kind: the only kind that is accepted.
        signed: an envelope, or its serialised bytes.
        verify_pk: Ed25519 public key, 32 bytes.

    Raises:
        MalformedError: `bad-envelope`.
        TrustError: `bad-signature`, also for another kind or suite.
    """
    envelope = parse_strict(Signed, signed, MAX_SIGNED_BYTES) if isinstance(signed, bytes) else signed
    if len(envelope.payload) > MAX_SIGNED_BYTES or len(envelope.kind) > _MAX_KIND_CHARS:
        raise MalformedError("bad-envelope", f"a signed {kind} is larger than {MAX_SIGNED_BYTES} bytes")
    if envelope.suite != SUITE:
        raise TrustError("bad-suite", f"a {kind} uses suite {envelope.suite}; this version knows {SUITE} only")
    if envelope.kind != kind or len(envelope.signature) != _SIGNATURE_BYTES:
        raise TrustError("bad-signature", f"this is not a signed {kind}")
    verify(kind, envelope.payload, envelope.signature, verify_pk)
    return envelope.payload


def signature_of(kind: str, payload: bytes, key: nacl.signing.SigningKey) -> bytes:
    """A detached signature over `payload` as `kind` (64 bytes)."""
    return _sign(kind, payload, key).signature


def verify(kind: str, payload: bytes, signature: bytes, verify_pk: bytes) -> None:
    """Check a detached signature over `payload` as `kind`.

    Raises:
        TrustError: `bad-signature`.
    """
    try:
        nacl.signing.VerifyKey(verify_pk).verify(_signing_input(kind, SUITE, payload), signature)
    except (nacl.exceptions.BadSignatureError, nacl.exceptions.CryptoError, ValueError, TypeError) as error:
        raise TrustError("bad-signature", f"the signature of this {kind} does not hold") from error


def parse_strict(message_type: type[Parsed], data: bytes, max_bytes: int = MAX_SIGNED_BYTES) -> Parsed:
    """Parse `data`, accepting only the one deterministic encoding of what it says.

    Raises:
        MalformedError: `bad-message`, for anything else.
    """
    name = message_type.DESCRIPTOR.name
    if len(data) > max_bytes:
        sentence = f"a {name} of {len(data)} bytes is over the limit of {max_bytes}"
        raise MalformedError("bad-message", sentence, remedy=_BAD_MESSAGE_REMEDY)
    message = message_type()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise MalformedError("bad-message", f"these bytes are not a {name}", remedy=_BAD_MESSAGE_REMEDY) from error
    message.DiscardUnknownFields()
    if message.SerializeToString(deterministic=True) != data:
        sentence = f"this {name} has unknown fields or is not in its one encoding"
        raise MalformedError("bad-message", sentence, remedy=_BAD_MESSAGE_REMEDY)
    check_numbers(message)
    return message


def check_numbers(message: Message) -> None:
    """Bound every integer and enum of a message, at any depth; `parse_strict` has done so.

    Raises:
        MalformedError: `bad-message`: an integer above `MAX_WIRE_INTEGER`, or an enum value that is not known.
    """
    for field in _numbered(message.DESCRIPTOR):
        value = getattr(message, field.name)
        if field.message_type is None:
            for number in (value,) if isinstance(value, int) else value:
                _check_number(field, number)
        elif not isinstance(value, Message):
            for part in value:
                check_numbers(part)
        elif message.HasField(field.name):
            check_numbers(value)


def _check_number(field: FieldDescriptor, number: int) -> None:
    name = field.full_name.removeprefix("bedside.proto.v1.")
    if number > MAX_WIRE_INTEGER:
        raise MalformedError("bad-message", f"{name} is {number}, over the limit of {MAX_WIRE_INTEGER}")
    if field.enum_type is not None and number not in field.enum_type.values_by_number:
        raise MalformedError("bad-message", f"{name} is {number}, which this version does not know")


@cache
def _numbered(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields that are, or hold, a 64-bit integer or an enum. No message of ours holds itself."""
    return tuple(field for field in descriptor.fields if _is_numbered(field))


def _is_numbered(field: FieldDescriptor) -> bool:
    if field.message_type is not None:
        return bool(_numbered(field.message_type))
    return field.cpp_type in (FieldDescriptor.CPPTYPE_UINT64, FieldDescriptor.CPPTYPE_ENUM)


def _signing_input(kind: str, suite: int, payload: bytes) -> bytes:
    domain = f"bedside/v1/{kind}".encode()
    return b"".join((domain, b"\0", suite.to_bytes(2, "big"), len(payload).to_bytes(8, "big"), payload))
