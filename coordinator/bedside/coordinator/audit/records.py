"""The record of a finished round, put together from what is stored as it is stored.

Nothing is verified here: an audit must see altered bytes, and name them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from sqlalchemy import Connection

from bedside.coordinator.audit.log_desk import LogDesk
from bedside.coordinator.parts import Parts
from bedside.coordinator.store import contributions, log, tasks
from bedside.coordinator.store.contributions import CohortRow, RefusalRow, WordRow
from bedside.coordinator.store.tasks import RoundRow
from bedside.core.errors import ProtocolError, RefusedError
from bedside.core.limits import MAX_CHUNK_BYTES
from bedside.core.signing import VerifiedCredential, digest
from bedside.proto.v1.audit_pb2 import (
    CohortRecord,
    LogCheckpoint,
    LogEvidence,
    LoggedEntry,
    RosterSet,
    RoundRecord,
    RoundRecordRequest,
)
from bedside.proto.v1.common_pb2 import BlobRef, Chunk, Signed
from bedside.proto.v1.device_pb2 import OpeningEntry
from bedside.proto.v1.plan_pb2 import Plan
from bedside.proto.v1.round_pb2 import Answer, Result

Parsed = TypeVar("Parsed", bound=Message)


class Records:
    """Finds finished rounds."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._desk = LogDesk(parts)
        self._names: tuple[bytes, frozenset[bytes]] = (b"", frozenset())
        """Of the round that was asked for last; a finished round's blobs do not change."""

    def record(self, request: RoundRecordRequest) -> RoundRecord:
        """Everything signed in a round.

        Raises:
            ProtocolError: `no-round`, or `round-open`.
        """
        return self._parts.store.run_tx("round-record", lambda tx: self._record(tx, self._find(tx, request)))

    def check_trustee(self, plan_digest: bytes, trustee: VerifiedCredential) -> None:
        """Refuse a trustee that the plan does not name: RefusedError `not-a-trustee`, ProtocolError `no-round`."""

        def work(tx: Connection) -> RoundRow:
            return self._find(tx, RoundRecordRequest(plan_digest=plan_digest))

        plan = _plan_of(self._parts.store.run_tx("find-round", work))
        if all(trustee.digest != one.credential_digest for cohort in plan.cohorts for one in cohort.trustees):
            raise RefusedError("not-a-trustee", f"{trustee.credential.subject} is not a trustee of that round")

    def blob_names(self, plan_digest: bytes) -> frozenset[bytes]:
        """Digests of all blobs that an audit of that round reads; raises ProtocolError `no-round`."""
        if self._names[0] != plan_digest:
            self._names = (plan_digest, self._find_names(plan_digest))
        return self._names[1]

    def _find_names(self, plan_digest: bytes) -> frozenset[bytes]:
        def work(tx: Connection) -> frozenset[bytes]:
            row = self._find(tx, RoundRecordRequest(plan_digest=plan_digest))
            plan, result = _plan_of(row), _lenient(Result, _lenient(Signed, row.result or b"").payload)
            names = {plan.checkpoint.digest, result.checkpoint.digest}
            names |= {result.optimiser_state.digest, self._previous_result(tx, row).optimiser_state.digest}
            for cohort in contributions.cohorts(tx, row.plan_digest):
                names |= {cohort.headers_digest or b"", cohort.sum_digest or b""}
            names |= {one.upload_blake3 for one in contributions.uploads(tx, row.plan_digest) if one.counted}
            words = contributions.words(tx, row.plan_digest, kind="answer")
            names |= {_lenient(Answer, _lenient(Signed, word.signed).payload).mask_sum_digest for word in words}
            return frozenset(names - {b""})

        return self._parts.store.run_tx("round-blobs", work)

    @staticmethod
    def _find(tx: Connection, request: RoundRecordRequest) -> RoundRow:
        if request.plan_digest:
            row = tasks.round_by_plan(tx, request.plan_digest)
        else:
            row = tasks.round_of_task(tx, request.task, request.round_number)
        if row is None:
            raise ProtocolError("no-round", "there is no such round here", remedy="bedside round list")
        if row.result is None:
            raise ProtocolError(
                "round-open", f"round {row.number} of {row.task} has no result yet", remedy="wait until it has ended"
            )
        return row

    def _record(self, tx: Connection, row: RoundRow) -> RoundRecord:
        plan = _plan_of(row)
        record = RoundRecord(
            federation=self._parts.registry.signed_federation,
            plan=_lenient(Signed, row.plan),
            result=_lenient(Signed, row.result or b""),
        )
        bundle = tasks.bundle(tx, plan.bundle.digest)
        if bundle is not None:
            record.manifest.CopyFrom(_lenient(Signed, bundle.manifest))
        words = contributions.words(tx, row.plan_digest)
        refusals = contributions.refusals(tx, row.plan_digest)
        for cohort in contributions.cohorts(tx, row.plan_digest):
            record.cohorts.append(self._cohort(cohort, plan, words, refusals))
            rosters = self._rosters(cohort, plan)
            record.cohorts[-1].rosters.extend(rosters.rosters)
            if rosters.HasField("federation"):
                record.federation.CopyFrom(rosters.federation)
        before = tasks.round_of_task(tx, row.task, row.number - 1) if row.number > 1 else None
        if before is not None:
            record.previous_plan.CopyFrom(_lenient(Signed, before.plan))
            record.previous_result.CopyFrom(_lenient(Signed, before.result or b""))
        record.log.CopyFrom(self._evidence(tx, record, plan, row))
        return record

    def _cohort(self, row: CohortRow, plan: Plan, words: list[WordRow], refusals: list[RefusalRow]) -> CohortRecord:
        record = CohortRecord(cohort=row.cohort)
        if row.headers_digest is not None:
            record.headers.CopyFrom(BlobRef(digest=row.headers_digest, size_bytes=row.headers_bytes))
        trustees = [t.credential_digest for c in plan.cohorts if c.index == row.cohort for t in c.trustees]
        for trustee in trustees:
            for word in words:
                if (word.cohort, word.credential_digest) == (row.cohort, trustee):
                    self._add_word(record, word)
            for refusal in refusals:
                if (refusal.cohort, refusal.credential_digest) == (row.cohort, trustee):
                    record.refusals.append(_lenient(Signed, refusal.signed))
        return record

    def _add_word(self, record: CohortRecord, word: WordRow) -> None:
        signed = _lenient(Signed, word.signed)
        if word.kind == "opening":
            credential = self._parts.registry.credential(word.credential_digest)
            record.openings.append(OpeningEntry(opening=signed, credential=credential.signed if credential else None))
        elif word.kind == "vote":
            record.votes.append(signed)
        elif word.kind == "answer":
            record.answers.append(signed)
        else:
            record.closings.append(signed)

    def _rosters(self, row: CohortRow, plan: Plan) -> RosterSet:
        """What the set was sealed by; the newest rosters where no set was sealed, or by an earlier version."""
        if row.rosters_digest is not None:
            return _lenient(RosterSet, b"".join(self._parts.blobs.chunks(row.rosters_digest, "blake2b")))
        sites = [site for cohort in plan.cohorts if cohort.index == row.cohort for site in cohort.sites]
        return RosterSet(rosters=self._parts.registry.rosters(sites))

    def _evidence(self, tx: Connection, record: RoundRecord, plan: Plan, row: RoundRow) -> LogEvidence:
        signed = self._desk.newest(tx)
        size = _lenient(LogCheckpoint, signed.payload).size
        entries = log.entries_of(tx, row.plan_digest)
        entries += log.untyped_entries(tx, row.plan_digest, digest(record.result.payload))
        paths = log.inclusions(tx, [one.position for one in entries], size)
        return LogEvidence(
            checkpoint=signed,
            consistency=log.consistency(tx, min(plan.log_size, size), size),
            entries=[
                LoggedEntry(index=one.position, leaf=one.leaf, inclusion=path)
                for one, path in zip(entries, paths, strict=True)
            ],
        )

    @staticmethod
    def _previous_result(tx: Connection, row: RoundRow) -> Result:
        before = tasks.round_of_task(tx, row.task, row.number - 1) if row.number > 1 else None
        return _lenient(Result, _lenient(Signed, before.result or b"").payload) if before else Result()


def record_chunks(record: RoundRecord) -> Iterator[Chunk]:
    """A record as it goes over the wire."""
    data = record.SerializeToString(deterministic=True)
    for at in range(0, len(data), MAX_CHUNK_BYTES):
        yield Chunk(offset_bytes=at, data=data[at : at + MAX_CHUNK_BYTES], total_bytes=len(data))


def _plan_of(row: RoundRow) -> Plan:
    return _lenient(Plan, _lenient(Signed, row.plan).payload)


def _lenient(message_type: type[Parsed], data: bytes) -> Parsed:
    """What can be read of stored bytes; an audit says that they were altered, not this."""
    message = message_type()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return message_type()
    return message
