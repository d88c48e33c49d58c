"""What `bedside audit log` shows. Signatures are checked here: a coordinator's word on its trustees is not enough."""

from __future__ import annotations

from dataclasses import dataclass

from bedside.core.log.messages import open_checkpoint, open_cosignature, open_verdict
from bedside.core.signing.envelope import parse_strict
from bedside.core.signing.trust import VerifiedCredential, authority_of, open_credential, open_federation
from bedside.proto.v1.audit_pb2 import LogCheckpoint, LogStatus
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import Credential, Federation
from bedside.service.text import bounded


@dataclass(frozen=True, slots=True)
class Vouched:
    """A trustee's word on a size of the log. `covers` when it is on exactly the newest checkpoint."""

    site: str
    trustee: str
    size: int
    covers: bool
    cosigned_at_s: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A trustee's word on a round that it recomputed."""

    site: str
    trustee: str
    plan_digest: bytes
    holds: bool
    code: str
    sentence: str
    checked_at_s: int


@dataclass(frozen=True, slots=True)
class LogData:
    """The log and who vouches for it."""

    federation: str
    size: int
    root: bytes
    signed_at_s: int
    cosignatures: list[Vouched]
    verdicts: list[Judged]


def log_data(status: LogStatus) -> LogData:
    """Verify what a coordinator says of its log.

    Raises:
        TrustError, MalformedError: the federation, the checkpoint, a cosignature or a verdict does not hold.
    """
    federation = open_federation(status.federation, status.root_pk)
    checkpoint = open_checkpoint(status.checkpoint, federation.coordinator.sign_pk, federation.federation)
    return LogData(
        federation.federation,
        checkpoint.size,
        checkpoint.root,
        checkpoint.signed_at_s,
        [_vouched(one.cosignature, one.credential, federation, checkpoint) for one in status.cosignatures],
        [_judged(one.verdict, one.credential, federation) for one in status.verdicts],
    )


def log_lines(data: LogData) -> list[str]:
    """The same for people."""
    lines = [f"log of {data.federation}: {data.size} entries, root {data.root.hex()}"]
    for one in data.cosignatures:
        behind = "all of it" if one.covers else f"its first {one.size} entries"
        lines.append(f"  {bounded(one.site)} ({one.trustee}) vouches for {behind}")
    if not data.cosignatures:
        lines.append("  no trustee has vouched for it yet")
    for verdict in data.verdicts:
        said = "holds" if verdict.holds else f"DOES NOT HOLD ({verdict.code}): {bounded(verdict.sentence)}"
        lines.append(f"  {bounded(verdict.site)} recomputed plan {verdict.plan_digest.hex()[:16]}: {said}")
    return lines


def _vouched(signed: Signed, credential: Signed, federation: Federation, checkpoint: LogCheckpoint) -> Vouched:
    trustee = _trustee(credential, federation)
    told = open_cosignature(signed, trustee, federation.federation)
    covers = (told.size, told.root) == (checkpoint.size, checkpoint.root)
    return Vouched(trustee.site, trustee.credential.subject, told.size, covers, told.cosigned_at_s)


def _judged(signed: Signed, credential: Signed, federation: Federation) -> Judged:
    trustee = _trustee(credential, federation)
    told = open_verdict(signed, trustee, federation.federation)
    return Judged(
        trustee.site,
        trustee.credential.subject,
        told.plan_digest,
        told.holds,
        told.code,
        told.sentence,
        told.checked_at_s,
    )


def _trustee(signed: Signed, federation: Federation) -> VerifiedCredential:
    return open_credential(signed, authority_of(federation, parse_strict(Credential, signed.payload).site))
