"""Signed envelopes over opaque bytes, and who may sign what."""

from bedside.core.signing.envelope import digest, open_signed, parse_strict, sign, sign_message
from bedside.core.signing.trust import Trust, VerifiedCredential, open_federation, open_roster

__all__ = [
    "Trust",
    "VerifiedCredential",
    "digest",
    "open_federation",
    "open_roster",
    "open_signed",
    "parse_strict",
    "sign",
    "sign_message",
]
