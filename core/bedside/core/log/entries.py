"""One entry of the log: what was said, in which round, by whom; never what it says.

The leaf that is hashed is the deterministic encoding of a `LogEntry`. Logs that began before entries had types hold
leaves of 32 bytes, the digest alone; they stay as they were hashed, since plans have committed to them.
"""

from __future__ import annotations

from typing import Final

from bedside.core.errors import MalformedError
from bedside.core.signing.envelope import DIGEST_BYTES, parse_strict
from bedside.proto.v1 import audit_pb2
from bedside.proto.v1.audit_pb2 import LogEntry

MAX_LEAF_BYTES: Final = 256
"""Bytes of one leaf: three digests and two numbers."""

KINDS: Final = {
    "plan": audit_pb2.LOG_ENTRY_KIND_PLAN,
    "opening": audit_pb2.LOG_ENTRY_KIND_OPENING,
    "refusal": audit_pb2.LOG_ENTRY_KIND_REFUSAL,
    "header-set": audit_pb2.LOG_ENTRY_KIND_HEADER_SET,
    "vote": audit_pb2.LOG_ENTRY_KIND_VOTE,
    "answer": audit_pb2.LOG_ENTRY_KIND_ANSWER,
    "closed": audit_pb2.LOG_ENTRY_KIND_CLOSED,
    "result": audit_pb2.LOG_ENTRY_KIND_RESULT,
    "verdict": audit_pb2.LOG_ENTRY_KIND_VERDICT,
}
"""Kinds of entries by the name that signatures, tables and commands use."""

NAMES: Final = {kind: name for name, kind in KINDS.items()}
UNTYPED: Final = audit_pb2.LOG_ENTRY_KIND_UNSPECIFIED
"""The kind of an entry from before entries had types."""

CHAINED: Final = frozenset(KINDS[name] for name in ("opening", "vote", "answer", "closed"))
"""What a trustee says as links of its chain: it knows each of its own."""

_SAID_BY_TRUSTEES: Final = CHAINED | {KINDS["refusal"], KINDS["verdict"]}


def encode_entry(
    kind: str, payload_digest: bytes, plan_digest: bytes, *, cohort: int = 0, credential_digest: bytes = b""
) -> bytes:
    """The leaf of an entry; `kind` is a key of `KINDS`."""
    entry = LogEntry(
        kind=KINDS[kind],
        payload_digest=payload_digest,
        plan_digest=plan_digest,
        cohort=cohort,
        credential_digest=credential_digest,
    )
    return entry.SerializeToString(deterministic=True)


def read_entry(leaf: bytes) -> LogEntry:
    """The entry of a leaf; an old one of 32 bytes is `UNTYPED` and has a payload digest only.

    Raises:
        MalformedError: `bad-message` or `bad-entry`.
    """
    if len(leaf) == DIGEST_BYTES:
        return LogEntry(payload_digest=leaf)
    entry = parse_strict(LogEntry, leaf, MAX_LEAF_BYTES)
    digests_hold = len(entry.payload_digest) == len(entry.plan_digest) == DIGEST_BYTES
    said = DIGEST_BYTES if entry.kind in _SAID_BY_TRUSTEES else 0
    if entry.kind not in NAMES or not digests_hold or len(entry.credential_digest) != said:
        raise MalformedError("bad-entry", "an entry of the log is of no known kind, or its digests are not whole")
    return entry
