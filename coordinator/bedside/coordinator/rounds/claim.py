"""What a signed message says of itself, read to find the round whose rules verify it."""

from __future__ import annotations

from typing import Final, TypeVar

from google.protobuf.message import Message

from bedside.core.errors import MalformedError
from bedside.core.signing import parse_strict
from bedside.proto.v1.common_pb2 import Signed

MAX_WORD_BYTES: Final = 64 << 10
"""Bytes of one signed header, opening, vote, answer, closing or refusal with its envelope: five openings and a plan fit
one offer, and 10,000 headers stay a set that can be sent. A header for five trustees has 6 KiB."""

Claimed = TypeVar("Claimed", bound=Message)


def claim(message_type: type[Claimed], signed: Signed) -> Claimed:
    """Read a message whose signature is not verified yet.

    Raises:
        MalformedError: `bad-message`, also when it is over `MAX_WORD_BYTES` with whatever stands beside its payload.
    """
    if signed.ByteSize() > MAX_WORD_BYTES:
        name = message_type.DESCRIPTOR.name
        raise MalformedError("bad-message", f"a signed {name} is over the limit of {MAX_WORD_BYTES} bytes")
    return parse_strict(message_type, signed.payload)
