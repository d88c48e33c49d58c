"""Fixing a cohort's set: the headers that are sent to the trustees, in the order of their credentials."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from bedside.coordinator.blobs import BlobStore
from bedside.coordinator.enrolment.registry import Registry
from bedside.coordinator.rounds.state import RoundState, phase_of
from bedside.coordinator.store import contributions
from bedside.coordinator.store.contributions import CohortRow, UploadRow
from bedside.core.securesum.aggregator import CohortInput, CohortPhase, advance
from bedside.core.signing import parse_strict
from bedside.proto.v1.audit_pb2 import RosterSet
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from bedside.proto.v1.trustee_pb2 import HeaderEntry, HeaderSet


def seal_cohort(
    state: RoundState, row: CohortRow, registry: Registry, blobs: BlobStore, now_ms: int
) -> Callable[[Connection], None]:
    """The work that seals a cohort with the uploads that are accepted at that moment.

    The blobs of set and rosters are written before the commit: a process killed in between leaves unused files, and
    seals again.
    """

    def work(tx: Connection) -> None:
        current = next(one for one in contributions.cohorts(tx, row.plan_digest) if one.cohort == row.cohort)
        if phase_of(current) is not CohortPhase.COLLECTING:
            return
        accepted = contributions.uploads(tx, row.plan_digest, row.cohort)
        uploads = _countable(accepted, registry)[: state.plan.plan.max_contributors]
        phase = advance(CohortPhase.COLLECTING, CohortInput.SEAL)
        if len(uploads) < state.plan.plan.min_contributors:
            phase = advance(CohortPhase.COLLECTING, CohortInput.TOO_FEW)
            sentence = "too few of the devices that sent an update are still on their rosters"
            contributions.set_phase(tx, row, phase.value, now_ms, "too-few-devices", sentence)
            return
        data = header_set(uploads, registry).SerializeToString(deterministic=True)
        name = blobs.put(data)
        sites = list(state.plan.cohort(row.cohort).sites)
        judged_by = RosterSet(rosters=registry.rosters(sites), federation=registry.signed_federation)
        rosters = blobs.put(judged_by.SerializeToString(deterministic=True))
        members = (upload.credential_digest for upload in uploads)
        contributions.set_sealed(tx, row, name, len(data), rosters, members)
        contributions.set_phase(tx, row, phase.value, now_ms)

    return work


def header_set(uploads: list[UploadRow], registry: Registry) -> HeaderSet:
    """The headers of these uploads, with their credentials."""
    entries = []
    for upload in uploads:
        credential = registry.credential(upload.credential_digest)
        if credential is not None:
            entries.append(HeaderEntry(header=parse_strict(Signed, upload.header), credential=credential.signed))
    return HeaderSet(entries=entries)


def headers_ref(row: CohortRow) -> BlobRef:
    """How a sealed cohort's set is named."""
    return BlobRef(digest=row.headers_digest or b"", size_bytes=row.headers_bytes)


def _countable(uploads: list[UploadRow], registry: Registry) -> list[UploadRow]:
    """Accepted uploads of devices that were not revoked meanwhile: trustees would refuse the whole set for one."""
    countable = []
    for upload in uploads:
        credential = registry.credential(upload.credential_digest)
        if upload.accepted and credential is not None and registry.trust.lists(credential.site, credential.digest):
            countable.append(upload)
    return countable
