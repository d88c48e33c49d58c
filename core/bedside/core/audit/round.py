"""Recompute one finished round and say what holds, up to the first thing that does not.

The only thing taken on trust is the federation root's public key. Everything else follows from the record and its
blobs: who may speak, what was said, what was summed, and what the sum led to. Memory of one set of headers, one upload
and one decoded sum per cohort; uploads are read one after another.

Source: DESIGN sections 1 (promise 7) and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from bedside.core.audit.cohort import CohortAudit
from bedside.core.audit.logged import check_log
from bedside.core.audit.record import BlobName, ReadBlob, checked_blob
from bedside.core.audit.report import CHECKS, BrokenError, Line, Report
from bedside.core.bundle.manifest import decode_manifest
from bedside.core.bundle.tensors import encode_tensors, float_tensors
from bedside.core.errors import BedsideError, UnavailableError
from bedside.core.learning.step import CohortSum, NextModel, count_sums, next_checkpoint
from bedside.core.securesum.plans import CheckedPlan, open_plan
from bedside.core.signing.envelope import SUITE, digest, open_signed, parse_strict
from bedside.core.signing.trust import open_federation
from bedside.proto.v1.audit_pb2 import RoundRecord
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from bedside.proto.v1.identity_pb2 import Federation
from bedside.proto.v1.plan_pb2 import Plan
from bedside.proto.v1.round_pb2 import COHORT_OUTCOME_OPENED, Result

Found = TypeVar("Found")


def audit_round(record: RoundRecord, read: ReadBlob, root_pk: bytes) -> Report:
    """Recompute a round.

    Args:
        record: all signed messages of the round; nothing in it is believed.
        read: brings blobs by name, called for one at a time; what it returns is not believed either.
        root_pk: Ed25519 key of the federation root, from somewhere else than the record.

    Returns:
        Checks in order; the last one may not hold. Nothing that stands in record or blobs raises.

    Raises:
        UnavailableError: from `read`, when it cannot bring a blob now: no finding, but no audit either.
    """
    audit = _Audit(record, read, root_pk)
    try:
        audit.run()
    except BrokenError as error:
        audit.lines.append(Line(error.code, audit.cohort, holds=False, sentence=error.sentence))
    plan = audit.plan.plan if audit.plan else Plan()
    digests = digest(record.plan.payload), digest(record.result.payload)
    return Report(plan.task, plan.round_number, *digests, tuple(audit.lines))


class _Audit:
    """One audit as it goes on."""

    def __init__(self, record: RoundRecord, read: ReadBlob, root_pk: bytes) -> None:
        self._record = record
        self._read = read
        self._root_pk = root_pk
        self.lines: list[Line] = []
        self.cohort: int | None = None
        self.plan: CheckedPlan | None = None

    def run(self) -> None:
        """Check everything; raises BrokenError at the first thing that does not hold."""
        record = self._record
        federation = self._checked("federation", lambda: open_federation(record.federation, self._root_pk))
        plan = self._checked("plan", lambda: _open_plan(record.plan, federation))
        self.plan = plan
        coordinator_pk = federation.coordinator.sign_pk
        result = self._checked("result", lambda: _open_result(record.result, plan, coordinator_pk))
        self._checked("log", lambda: check_log(record, plan, coordinator_pk))
        state = self._checked("lineage", lambda: self._lineage(plan, coordinator_pk))
        sums = list(self._cohorts(plan, result, federation))
        self.cohort = None
        self._checked("checkpoint", lambda: self._step(plan, result, sums, state))

    def _cohorts(self, plan: CheckedPlan, result: Result, federation: Federation) -> Iterator[CohortSum]:
        indices = [cohort.index for cohort in plan.plan.cohorts]
        for what, listed in (("record", self._record.cohorts), ("result", result.cohorts)):
            if [one.cohort for one in listed] != indices:
                raise BrokenError("outcome", f"the {what} does not speak of exactly the plan's cohorts")
        for told, outcome in zip(self._record.cohorts, result.cohorts, strict=True):
            self.cohort = told.cohort
            audit = CohortAudit(plan, told, outcome, federation, self._read)
            for code, check in audit.steps():
                self._checked(code, check)
            if outcome.outcome == COHORT_OUTCOME_OPENED:
                yield audit.opened_sum()

    def _lineage(self, plan: CheckedPlan, coordinator_pk: bytes) -> BlobRef:
        """Where the plan's checkpoint comes from; returns the optimiser state that the step begins with."""
        record, told = self._record, plan.plan
        if told.previous_result_digest:
            payload = open_signed("result", record.previous_result, coordinator_pk)
            previous = parse_strict(Result, payload)
            before = open_plan(record.previous_plan, coordinator_pk)
            if digest(payload) != told.previous_result_digest or previous.plan_digest != before.digest:
                raise BrokenError("lineage", "the record does not hold the result that the plan goes on from")
            if (previous.task, previous.round_number + 1) != (told.task, told.round_number):
                raise BrokenError("lineage", "the previous result is not of the round before this one")
            if before.plan.bundle.digest == told.bundle.digest:
                if previous.checkpoint != told.checkpoint:
                    raise BrokenError("lineage", "the plan's checkpoint is not the previous result's")
                return previous.optimiser_state
        self._genesis(plan)
        return BlobRef()

    def _genesis(self, plan: CheckedPlan) -> None:
        """The bundle's manifest names the first checkpoint; who may sign bundles stands in each site's policy."""
        encoded = self._record.manifest.payload
        if digest(encoded) != plan.plan.bundle.digest:
            raise BrokenError("lineage", "the record does not hold the manifest of the plan's bundle")
        if decode_manifest(encoded).checkpoint != plan.plan.checkpoint.digest.hex():
            raise BrokenError("lineage", "the plan's checkpoint is not the one that its bundle starts from")

    def _step(self, plan: CheckedPlan, result: Result, sums: list[CohortSum], state: BlobRef) -> None:
        told = plan.plan
        if not sums:
            if result.checkpoint != told.checkpoint or result.optimiser_state != state or result.counts:
                raise BrokenError("checkpoint", "nothing was opened, but the result changes the model")
            return
        parameters = float_tensors(self._blob(told.checkpoint, "the plan's checkpoint"))
        before = float_tensors(self._blob(state, "the optimiser's state")) if state.digest else None
        made = next_checkpoint(told, sums, parameters, before)
        stated = made.no_step.code if made.no_step is not None else ""
        if result.no_step_code != stated:
            raise BrokenError("checkpoint", "the result and the plan's combiner differ in whether there was a step")
        if made.no_step is not None and (result.checkpoint != told.checkpoint or result.optimiser_state != state):
            raise BrokenError("checkpoint", "there was no step, but the result changes the model")
        self._compare(made, result)

    def _compare(self, made: NextModel, result: Result) -> None:
        if list(result.counts) != count_sums(made.counts):
            raise BrokenError("checkpoint", "the result's counts are not those of the opened sums")
        if made.no_step is not None:
            return
        kept = ((made.parameters, result.checkpoint, "checkpoint"), (made.state, result.optimiser_state, "state"))
        for tensors, ref, what in kept:
            data = encode_tensors(tensors) if tensors else b""
            expected = BlobRef(digest=digest(data), size_bytes=len(data)) if data else BlobRef()
            if ref != expected:
                raise BrokenError("checkpoint", f"the step leads to another {what} than the result's")
            if data and self._blob(ref, f"the result's {what}") != data:
                raise BrokenError("checkpoint", f"the stored {what} is not the one that the step leads to")

    def _blob(self, ref: BlobRef, what: str) -> bytes:
        return checked_blob(self._read, BlobName("blake2b", ref.digest), "checkpoint", what)

    def _checked(self, code: str, check: Callable[[], Found]) -> Found:
        with _named(code):
            value = check()
        self.lines.append(Line(code, self.cohort, holds=True, sentence=CHECKS[code]))
        return value


@contextmanager
def _named(code: str) -> Iterator[None]:
    """Whatever our own parsers and rules say against the bytes is a finding of the check at hand."""
    try:
        yield
    except UnavailableError:
        raise
    except BedsideError as error:
        raise BrokenError(code, f"{error.sentence} [{error.code}]") from error


def _open_plan(signed: Signed, federation: Federation) -> CheckedPlan:
    plan = open_plan(signed, federation.coordinator.sign_pk)
    if plan.plan.federation != federation.federation:
        raise BrokenError("plan", "the plan is for another federation")
    return plan


def _open_result(signed: Signed, plan: CheckedPlan, coordinator_pk: bytes) -> Result:
    result = parse_strict(Result, open_signed("result", signed, coordinator_pk))
    told = plan.plan
    named = (result.suite, result.plan_digest, result.task, result.round_number, result.previous_result_digest)
    if named != (SUITE, plan.digest, told.task, told.round_number, told.previous_result_digest):
        raise BrokenError("result", "the result is of another plan than the record's")
    if result.bundle_digest != told.bundle.digest:
        raise BrokenError("result", "the result names another bundle than the plan")
    return result
