"""Signed words about the log: the coordinator's checkpoints, trustees' cosignatures, and trustees' verdicts on rounds.

Source: RFC 6962 section 3.5 (signed tree heads); C2SP tlog-cosignature for the idea that a follower signs what it saw.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from google.protobuf.message import Message
from nacl.signing import SigningKey

from bedside.core.errors import MalformedError, TrustError
from bedside.core.limits import MAX_TEXT_CHARS
from bedside.core.signing.envelope import DIGEST_BYTES, SUITE, open_signed, parse_strict, sign_message
from bedside.core.signing.trust import VerifiedCredential
from bedside.proto.v1.audit_pb2 import LogCheckpoint, LogCosignature, Verdict
from bedside.proto.v1.common_pb2 import Signed

CHECKPOINT = "log-checkpoint"
COSIGNATURE = "log-cosignature"
VERDICT = "verdict"


class _Said(Protocol):
    suite: int
    federation: str


Sent = TypeVar("Sent", bound=Message)


def sign_checkpoint(federation: str, size: int, root: bytes, now_s: int, key: SigningKey) -> Signed:
    """State that the log has `size` entries under `root`."""
    told = LogCheckpoint(suite=SUITE, federation=federation, size=size, root=root, signed_at_s=now_s)
    return sign_message(CHECKPOINT, told, key)


def open_checkpoint(signed: Signed, coordinator_pk: bytes, federation: str) -> LogCheckpoint:
    """Verify a checkpoint of this federation's log.

    Raises:
        TrustError: `bad-signature`, `bad-suite` or `other-federation`.
        MalformedError: `bad-message` or `bad-checkpoint`.
    """
    checkpoint = _open(LogCheckpoint, CHECKPOINT, signed, coordinator_pk, federation)
    if len(checkpoint.root) != DIGEST_BYTES:
        raise MalformedError("bad-checkpoint", "the root of a log checkpoint has the wrong length")
    return checkpoint


def sign_cosignature(checkpoint: LogCheckpoint, own: VerifiedCredential, now_s: int, key: SigningKey) -> Signed:
    """Vouch for a checkpoint whose every entry was read."""
    told = LogCosignature(
        suite=SUITE,
        federation=checkpoint.federation,
        size=checkpoint.size,
        root=checkpoint.root,
        credential_digest=own.digest,
        cosigned_at_s=now_s,
    )
    return sign_message(COSIGNATURE, told, key)


def open_cosignature(signed: Signed, credential: VerifiedCredential, federation: str) -> LogCosignature:
    """Verify a trustee's cosignature; raises as `open_checkpoint`, or `wrong-sender`."""
    cosignature = _open(LogCosignature, COSIGNATURE, signed, credential.sign_pk, federation)
    if len(cosignature.root) != DIGEST_BYTES:
        raise MalformedError("bad-checkpoint", "the root of a log cosignature has the wrong length")
    _check_sender(cosignature.credential_digest, credential)
    return cosignature


def open_verdict(signed: Signed, credential: VerifiedCredential, federation: str) -> Verdict:
    """Verify a trustee's verdict; raises as `open_checkpoint`, `wrong-sender` or `bad-verdict`."""
    verdict = _open(Verdict, VERDICT, signed, credential.sign_pk, federation)
    digests_hold = len(verdict.plan_digest) == len(verdict.result_digest) == DIGEST_BYTES
    text_holds = len(verdict.code) <= MAX_TEXT_CHARS and len(verdict.sentence) <= MAX_TEXT_CHARS
    if not digests_hold or not text_holds or verdict.holds == bool(verdict.code):
        raise MalformedError("bad-verdict", "a verdict either holds, or names what does not")
    _check_sender(verdict.credential_digest, credential)
    return verdict


def _open(message_type: type[Sent], kind: str, signed: Signed, verify_pk: bytes, federation: str) -> Sent:
    message = parse_strict(message_type, open_signed(kind, signed, verify_pk))
    said: _Said = message  # type: ignore[assignment]  # all three messages have these fields
    if said.suite != SUITE:
        raise TrustError("bad-suite", f"a {kind} uses suite {said.suite}; this version knows {SUITE} only")
    if said.federation != federation:
        raise TrustError("other-federation", f"this {kind} is of another federation")
    return message


def _check_sender(credential_digest: bytes, credential: VerifiedCredential) -> None:
    if credential_digest != credential.digest:
        raise TrustError("wrong-sender", "this message names another credential than its sender's")
