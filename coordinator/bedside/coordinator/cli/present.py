"""Rounds as JSON: digests in hexadecimal, times in milliseconds, names as in the protocol."""

from __future__ import annotations

from bedside.proto.v1.operator_pb2 import CohortDetail, Participant, RoundDetail, RoundSummary

Json = dict[str, object]


def summary_data(one: RoundSummary) -> Json:
    """One line of `round list`."""
    return {
        "task": one.task,
        "round_number": one.round_number,
        "plan_digest": one.plan_digest,
        "phase": one.phase,
        "contributors": one.contributors,
        "refusals": one.refusals,
        "started_at_s": one.started_at_s,
        "finished_at_s": one.finished_at_s,
        "reason": one.reason,
    }


def round_data(detail: RoundDetail) -> Json:
    """One round of `round show` and `round watch`."""
    return {
        **summary_data(detail.summary),
        "cohorts": [_cohort(cohort) for cohort in detail.cohorts],
        "phase_ms": {phase.phase: phase.elapsed_ms for phase in detail.phases},
        "counts": {count.name: count.sum for count in detail.counts},
        "checkpoint": {"digest": detail.checkpoint.digest, "size_bytes": detail.checkpoint.size_bytes},
        "sum_digest": detail.sum_digest,
        "upload_digests": list(detail.upload_digests),
    }


def _cohort(cohort: CohortDetail) -> Json:
    return {
        "index": cohort.index,
        "phase": cohort.phase,
        "set_size": cohort.set_size,
        "reason": cohort.reason,
        "trustees": [_participant(one) for one in cohort.trustees],
        "devices": [_participant(one) for one in cohort.devices],
    }


def _participant(one: Participant) -> Json:
    return {
        "id": one.id,
        "site": one.site,
        "label": one.label,
        "state": one.state,
        "code": one.code,
        "sentence": one.sentence,
        "received_bytes": one.received_bytes,
    }
