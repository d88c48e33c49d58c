"""Rounds as JSON: digests in hexadecimal, times in milliseconds, names as in the protocol."""

from __future__ import annotations

from typing import Final

from bedside.core.signing import parse_strict
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.operator_pb2 import CohortDetail, Participant, RoundDetail, RoundSummary
from bedside.proto.v1.round_pb2 import Result

Json = dict[str, object]

COMBINERS: Final = {
    "mean": plan_pb2.COMBINER_MEAN,
    "trimmed-mean": plan_pb2.COMBINER_TRIMMED_MEAN,
    "median": plan_pb2.COMBINER_MEDIAN,
}
"""The combiners as operators name them."""


def combiner_name(detail: RoundDetail) -> str:
    """How the round's plan combines its cohorts."""
    combiner = parse_strict(plan_pb2.Plan, detail.plan.payload).server.combiner
    return next((name for name, number in COMBINERS.items() if number == combiner), "mean")


def trim_of(detail: RoundDetail) -> int:
    """Cohorts that the round's plan leaves out at either end."""
    return parse_strict(plan_pb2.Plan, detail.plan.payload).server.trim_cohorts


def no_step(detail: RoundDetail) -> tuple[str, str]:
    """Code and sentence of a round that moved no model although cohorts were opened; else empty."""
    if not detail.HasField("result"):
        return "", ""
    result = parse_strict(Result, detail.result.payload)
    return result.no_step_code, result.no_step_sentence


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
        "combiner": combiner_name(detail),
        "trim_cohorts": trim_of(detail),
        "no_step_code": no_step(detail)[0],
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
