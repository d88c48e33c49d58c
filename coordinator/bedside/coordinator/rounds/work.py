"""What the coordinator waits for from a trustee: derived from the store at every question.

Closings come first: a trustee opens a new round of a task only when it has ended the one before. Then come the rounds,
and what machines without a credential ask for comes last: what they send shall not keep a trustee from its rounds.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from typing import Final

from bedside.coordinator.parts import Parts
from bedside.coordinator.rounds.seal import headers_ref
from bedside.coordinator.rounds.state import RoundState, find_round, phase_of, read_open_rounds
from bedside.coordinator.store import contributions, tasks
from bedside.core.limits import MAX_SIGNED_BYTES
from bedside.core.securesum.aggregator import CohortPhase
from bedside.core.signing import VerifiedCredential, parse_strict
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import OpeningEntry
from bedside.proto.v1.trustee_pb2 import CloseRequest, OpenRequest, RevealRequest, SealRequest, WorkItem
from bedside.service.logs import event

_LOGGER: Final = logging.getLogger(__name__)
WORK_DIGEST_BYTES: Final = 16
MAX_ENROLMENTS: Final = 100
"""Credential requests in one answer; the next ones follow when these are decided."""
MAX_WORK_BYTES: Final = MAX_SIGNED_BYTES
"""Bytes of all items in one answer: a gRPC message holds a little more."""
_ITEM_FRAME_BYTES: Final = 16
"""Tag and length of an item, at most."""


def work_digest(item: WorkItem) -> bytes:
    """How a trustee names work that it has done: the first 16 bytes of the item's BLAKE2b-256."""
    return hashlib.blake2b(item.SerializeToString(deterministic=True), digest_size=32).digest()[:WORK_DIGEST_BYTES]


class WorkList:
    """Finds the work of trustees."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def items(self, trustee: VerifiedCredential, known: Iterable[bytes]) -> list[WorkItem]:
        """What is waited for from this trustee and that it does not know yet, as much as fits one message."""
        done = set(known)
        return _fitting([item for item in self._all(trustee) if work_digest(item) not in done])

    def _all(self, trustee: VerifiedCredential) -> list[WorkItem]:
        items = self._closings(trustee)
        states = self._parts.store.run_tx("open-rounds", read_open_rounds(self._parts.sign_pk))
        for state in states:
            for cohort in state.plan.plan.cohorts:
                if trustee.digest in state.trustees(cohort.index):
                    items += self._of_cohort(state, cohort.index, trustee)
        requests = self._parts.desk.pending(trustee.site)[:MAX_ENROLMENTS]
        return items + [WorkItem(enrol=request) for request in requests]

    def _closings(self, trustee: VerifiedCredential) -> list[WorkItem]:
        store = self._parts.store
        items = []
        for plan_digest, cohort in store.run_tx(
            "unclosed-plans", lambda tx: contributions.unclosed_plans(tx, trustee.digest)
        ):
            state = store.run_tx("find-round", find_round(plan_digest, self._parts.sign_pk))
            if phase_of(state.cohort(cohort)) is CohortPhase.LEFT_OUT:
                items.append(WorkItem(close=CloseRequest(plan_digest=plan_digest, cohort=cohort)))
        return items

    def _of_cohort(self, state: RoundState, cohort: int, trustee: VerifiedCredential) -> list[WorkItem]:
        row = state.cohort(cohort)
        phase = phase_of(row)
        asked = {CohortPhase.OPENING: "opening", CohortPhase.SEALED: "vote", CohortPhase.REVEALING: "answer"}
        if phase not in asked or state.word(cohort, asked[phase], trustee.digest) is not None:
            return []
        if state.refusal(cohort, trustee.digest) is not None:
            return []
        if phase is CohortPhase.OPENING:
            return [WorkItem(open=self._open_request(state, cohort))]
        if phase is CohortPhase.SEALED:
            return [WorkItem(seal=self._seal_request(state, cohort))]
        votes = state.signed_words(cohort, "vote")
        reveal = RevealRequest(plan_digest=state.plan.digest, cohort=cohort, votes=votes, headers=headers_ref(row))
        return [WorkItem(reveal=reveal)]

    def _open_request(self, state: RoundState, cohort: int) -> OpenRequest:
        registry = self._parts.registry
        return OpenRequest(
            plan=state.plan.signed,
            cohort=cohort,
            federation=registry.signed_federation,
            rosters=registry.rosters(list(state.plan.cohort(cohort).sites)),
            manifest=bundle_manifest(self._parts, state),
            previous_result=previous_envelope(self._parts, state),
        )

    def _seal_request(self, state: RoundState, cohort: int) -> SealRequest:
        registry = self._parts.registry
        return SealRequest(
            plan_digest=state.plan.digest,
            cohort=cohort,
            openings=opening_entries(self._parts, state, cohort),
            headers=headers_ref(state.cohort(cohort)),
            federation=registry.signed_federation,
            rosters=registry.rosters(list(state.plan.cohort(cohort).sites)),
        )


def _fitting(items: list[WorkItem]) -> list[WorkItem]:
    """The first items up to the budget; the others follow when these are known. One that never fits holds up none."""
    fitting, left_bytes = [], MAX_WORK_BYTES
    for item in items:
        size_bytes = item.ByteSize() + _ITEM_FRAME_BYTES
        if size_bytes > MAX_WORK_BYTES:
            event(_LOGGER, "work-too-large", level=logging.ERROR, item=item.WhichOneof("item"), bytes=size_bytes)
        elif size_bytes > left_bytes:
            break
        else:
            fitting.append(item)
            left_bytes -= size_bytes
    return fitting


def opening_entries(parts: Parts, state: RoundState, cohort: int) -> list[OpeningEntry]:
    """The openings of all of a cohort's trustees with their credentials, in the plan's order."""
    entries = []
    for trustee, signed in zip(state.trustees(cohort), state.signed_words(cohort, "opening"), strict=True):
        credential = parts.registry.credential(trustee)
        if credential is not None:
            entries.append(OpeningEntry(opening=signed, credential=credential.signed))
    return entries


def bundle_manifest(parts: Parts, state: RoundState) -> Signed:
    """The signed manifest of a plan's bundle."""
    row = parts.store.run_tx("read-bundle", lambda tx: tasks.bundle(tx, state.plan.plan.bundle.digest))
    return parse_strict(Signed, row.manifest) if row is not None else Signed()


def previous_envelope(parts: Parts, state: RoundState) -> Signed | None:
    """The signed result that a plan goes on from; None in a task's first round."""
    if state.row.number <= 1:
        return None
    row = parts.store.run_tx("previous-round", lambda tx: tasks.round_of_task(tx, state.row.task, state.row.number - 1))
    return parse_strict(Signed, row.result) if row is not None and row.result is not None else None
