"""The part of an audit that asks the log: was all of this said when it happened, and to everybody alike?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bedside.core.audit.report import BrokenError
from bedside.core.log.entries import KINDS, NAMES, UNTYPED, read_entry
from bedside.core.log.messages import open_checkpoint
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.signing.envelope import digest
from bedside.core.tree import verify_consistency, verify_inclusion
from bedside.proto.v1.audit_pb2 import CohortRecord, LogEntry, RoundRecord
from bedside.proto.v1.common_pb2 import Signed

_Key = tuple[str, bytes, int]

_BEFORE_RESULT: Final = frozenset({"plan", "header-set", "vote", "answer"})
"""A cohort that was left out may still be told of openings, refusals and closings later."""


def check_log(record: RoundRecord, plan: CheckedPlan, coordinator_pk: bytes) -> None:
    """Verify that everything in the record is in one signed log, which began with the log that the plan names.

    Logs that began before entries had types prove plan and result only.

    Raises:
        BrokenError: `log`.
        BedsideError: the checkpoint or an entry is not well-formed.
    """
    evidence = record.log
    checkpoint = open_checkpoint(evidence.checkpoint, coordinator_pk, plan.plan.federation)
    size, root = checkpoint.size, checkpoint.root
    told = plan.plan
    if not verify_consistency(told.log_size, told.log_root, size, root, evidence.consistency):
        raise BrokenError("log", "the log that the plan names is not the beginning of the signed log")
    found: dict[_Key, int] = {}
    for entry in evidence.entries:
        if not verify_inclusion(root, entry.leaf, entry.index, size, entry.inclusion):
            raise BrokenError("log", f"entry {entry.index} is not in the signed log as it stands here")
        read = read_entry(entry.leaf)
        if read.kind != UNTYPED and read.plan_digest != plan.digest:
            raise BrokenError("log", f"entry {entry.index} is about another plan")
        found[_key_of(read, plan, record)] = entry.index
    if found.get(("plan", plan.digest, 0)) != told.log_size:
        raise BrokenError("log", "the plan is not the entry that follows the log which it names")
    _compare(record, plan, found, typed=_is_typed(record, told.log_size))


def _compare(record: RoundRecord, plan: CheckedPlan, found: dict[_Key, int], *, typed: bool) -> None:
    result = ("result", digest(record.result.payload), 0)
    said = {("plan", plan.digest, 0), result}
    if typed:
        said |= {key for cohort in record.cohorts for key in _said(cohort)}
    for kind, _, cohort in sorted(said - found.keys()):
        raise BrokenError("log", f"a {kind} of this round (cohort {cohort}) is not in the log")
    for kind, _, cohort in sorted(found.keys() - said):
        if kind != "verdict":
            raise BrokenError("log", f"the log has a {kind} (cohort {cohort}) that is not in the record")
    if any(found[key] > found[result] for key in said if key[0] in _BEFORE_RESULT):
        raise BrokenError("log", "a set, vote or answer was logged after the result that rests on it")


def _said(cohort: CohortRecord) -> Iterator[_Key]:
    words: dict[str, list[Signed]] = {
        "opening": [entry.opening for entry in cohort.openings],
        "vote": list(cohort.votes),
        "answer": list(cohort.answers),
        "closed": list(cohort.closings),
        "refusal": list(cohort.refusals),
    }
    for kind, listed in words.items():
        for signed in listed:
            yield kind, digest(signed.payload), cohort.cohort
    if cohort.HasField("headers"):
        yield "header-set", cohort.headers.digest, cohort.cohort


def _key_of(entry: LogEntry, plan: CheckedPlan, record: RoundRecord) -> _Key:
    if entry.kind != UNTYPED:
        return NAMES[entry.kind], entry.payload_digest, entry.cohort
    kind = "plan" if entry.payload_digest == plan.digest else "result"
    if kind == "result" and entry.payload_digest != digest(record.result.payload):
        raise BrokenError("log", "an entry without a type is neither this plan nor its result")
    return kind, entry.payload_digest, 0


def _is_typed(record: RoundRecord, index: int) -> bool:
    leaf = next(entry.leaf for entry in record.log.entries if entry.index == index)
    return read_entry(leaf).kind == KINDS["plan"]
