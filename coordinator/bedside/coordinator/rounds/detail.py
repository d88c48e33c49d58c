"""A round as its operator sees it: phases, who took part, who refused and why."""

from __future__ import annotations

from typing import Final

from bedside.coordinator.aggregation.result import took_step
from bedside.coordinator.parts import Parts
from bedside.coordinator.rounds.judge import close_reason
from bedside.coordinator.rounds.plans import previous_result
from bedside.coordinator.rounds.state import RoundState, phase_of
from bedside.coordinator.store import contributions
from bedside.coordinator.store.contributions import CohortRow, PhaseRow
from bedside.core.securesum.aggregator import CohortPhase
from bedside.core.signing import VerifiedCredential, parse_strict
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.operator_pb2 import CohortDetail, Participant, PhaseTime, RoundDetail, RoundSummary
from bedside.proto.v1.plan_pb2 import CohortTrustee

PHASE_NAMES: Final = {
    CohortPhase.OPENING: "opening",
    CohortPhase.COLLECTING: "collecting",
    CohortPhase.SEALED: "sealed",
    CohortPhase.REVEALING: "voted",
    CohortPhase.ANSWERED: "answered",
    CohortPhase.OPENED: "opened",
    CohortPhase.LEFT_OUT: "failed",
}
_ORDER: Final = list(PHASE_NAMES)
_TRUSTEE_STEPS: Final = (("answer", "answered"), ("vote", "voted"), ("opening", "opened"))


def summarise(state: RoundState) -> RoundSummary:
    """One line about a round."""
    result = previous_result(state.row) if state.row.result is not None else None
    if result is not None:
        phase = "opened" if took_step(result) else "failed"
    else:
        phase = PHASE_NAMES[min((phase_of(row) for row in state.cohorts), key=_ORDER.index)]
    reasons = [row.sentence for row in state.cohorts if row.sentence]
    reasons += [result.no_step_sentence] if result is not None and result.no_step_sentence else []
    return RoundSummary(
        task=state.row.task,
        round_number=state.row.number,
        plan_digest=state.plan.digest,
        phase=phase,
        contributors=sum(_contributors(state, row) for row in state.cohorts),
        refusals=len(state.refusals),
        started_at_s=state.row.started_at_s,
        finished_at_s=state.row.finished_at_s,
        reason="; ".join(reasons),
    )


def describe(parts: Parts, state: RoundState) -> RoundDetail:
    """Everything about a round that is not private, and nothing else is known here."""
    rows = parts.store.run_tx("read-phases", lambda tx: contributions.phases(tx, state.plan.digest))
    detail = RoundDetail(
        summary=summarise(state),
        cohorts=[_cohort(parts, state, row) for row in state.cohorts],
        phases=phase_times(rows, parts.now_ms()),
        plan=state.plan.signed,
        upload_digests=[upload.upload_blake3 for upload in state.uploads if upload.accepted],
        sum_digest=next((row.sum_digest for row in reversed(state.cohorts) if row.sum_digest), b""),
    )
    result = previous_result(state.row) if state.row.result is not None else None
    if result is not None and state.row.result is not None:
        detail.result.CopyFrom(parse_strict(Signed, state.row.result))
        detail.counts.extend(result.counts)
        detail.checkpoint.CopyFrom(result.checkpoint)
    return detail


def phase_times(rows: list[PhaseRow], now_ms: int) -> list[PhaseTime]:
    """How long each phase took in the slowest cohort, in the order of the phases; an open one counts up to now."""
    longest: dict[CohortPhase, int] = {}
    for cohort in {row.cohort for row in rows}:
        own = sorted(
            (row for row in rows if row.cohort == cohort), key=lambda row: _ORDER.index(CohortPhase(row.phase))
        )
        ends = [row.entered_ms for row in own[1:]] + [now_ms]
        for row, end_ms in zip(own, ends, strict=True):
            phase = CohortPhase(row.phase)
            if phase not in (CohortPhase.OPENED, CohortPhase.LEFT_OUT):
                longest[phase] = max(longest.get(phase, 0), end_ms - row.entered_ms)
    return [PhaseTime(phase=PHASE_NAMES[phase], elapsed_ms=longest[phase]) for phase in _ORDER if phase in longest]


def _contributors(state: RoundState, row: CohortRow) -> int:
    if row.set_size:
        return row.set_size
    return sum(upload.accepted and upload.cohort == row.cohort for upload in state.uploads)


def _cohort(parts: Parts, state: RoundState, row: CohortRow) -> CohortDetail:
    cohort = state.plan.cohort(row.cohort)
    listed = parts.registry.devices(cohort.sites)
    known = {device.digest for device in listed}
    gone = [upload.credential_digest for upload in state.uploads if upload.cohort == row.cohort]
    revoked = [parts.registry.credential(digest) for digest in gone if digest not in known]
    devices = listed + [device for device in revoked if device is not None]
    return CohortDetail(
        index=row.cohort,
        phase=PHASE_NAMES[phase_of(row)],
        trustees=[_trustee(parts, state, row, trustee) for trustee in cohort.trustees],
        devices=[_device(parts, state, row, device) for device in devices],
        set_size=row.set_size,
        reason=row.sentence,
    )


def _trustee(parts: Parts, state: RoundState, row: CohortRow, trustee: CohortTrustee) -> Participant:
    credential = parts.registry.credential(trustee.credential_digest)
    label = credential.credential.label if credential is not None else ""
    participant = Participant(id=trustee.trustee, site=trustee.site, label=label, role="trustee")
    refusal = state.refusal(row.cohort, trustee.credential_digest)
    closed = state.word(row.cohort, "closed", trustee.credential_digest)
    said = [
        step for kind, step in _TRUSTEE_STEPS if state.word(row.cohort, kind, trustee.credential_digest) is not None
    ]
    if refusal is not None:
        participant.state, participant.code, participant.sentence = "refused", refusal.code, refusal.sentence
    elif closed is not None:
        participant.state = close_reason(closed)
    else:
        waiting = "silent" if phase_of(row) is CohortPhase.LEFT_OUT else "expected"
        participant.state = said[0] if said else waiting
    return participant


def _device(parts: Parts, state: RoundState, row: CohortRow, device: VerifiedCredential) -> Participant:
    told = device.credential
    participant = Participant(id=told.subject, site=told.site, label=told.label, role="device")
    upload = state.upload(device.digest)
    refusal = state.refusal(row.cohort, device.digest)
    if upload is not None and upload.accepted:
        participant.received_bytes = upload.upload_bytes
        participant.state = "counted" if upload.counted else "accepted"
    elif refusal is not None:
        participant.state, participant.code, participant.sentence = "refused", refusal.code, refusal.sentence
    elif upload is not None:
        participant.received_bytes = parts.staging.received_bytes(upload.header_digest)
        participant.state = "uploading"
    else:
        participant.state = "expected" if parts.roll.is_online(device) else "silent"
    return participant
