"""The end of a round: combine the cohorts' sums, step the server optimiser, and state the result.

Invariant: everything here follows from stored bytes, finish time included, so that a coordinator killed between seal
and result signs the identical result after its restart (Ed25519 is deterministic too).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bedside.coordinator.blobs import BlobStore
from bedside.coordinator.rounds.state import RoundState, phase_of
from bedside.coordinator.store.contributions import CohortRow
from bedside.core.bundle.tensors import encode_tensors, float_tensors
from bedside.core.learning.step import CohortSum, count_sums, next_checkpoint
from bedside.core.limits import MAX_TEXT_CHARS
from bedside.core.securesum.aggregator import CohortPhase
from bedside.core.securesum.messages import words_digest
from bedside.core.securesum.opening import decode_opened
from bedside.core.signing import parse_strict
from bedside.core.signing.envelope import SUITE
from bedside.proto.v1.common_pb2 import BlobRef
from bedside.proto.v1.round_pb2 import (
    COHORT_OUTCOME_LEFT_OUT,
    COHORT_OUTCOME_OPENED,
    Answer,
    CohortResult,
    Result,
)

FloatArray = npt.NDArray[np.float32]
_MS_PER_S = 1_000


def make_result(state: RoundState, previous_state: BlobRef | None, blobs: BlobStore) -> Result:
    """State the result of a settled round; new checkpoint and optimiser state are stored.

    Args:
        state: a round whose cohorts are all opened or left out.
        previous_state: optimiser state of the task's last round, when it goes on from there.
        blobs: where sums are read from and models are written to.

    Raises:
        StoreError: `no-blob` or `blob-damaged`.
        ProtocolError: `delta-not-finite`, from a robust combiner.
    """
    result = _result(state, previous_state)
    opened = [row for row in state.cohorts if phase_of(row) is CohortPhase.OPENED]
    if opened:
        _step(state, [_decode(state, row, blobs) for row in opened], result, blobs)
    return result


def result_without_step(state: RoundState, previous_state: BlobRef | None, code: str, sentence: str) -> Result:
    """The result of a settled round whose step cannot be made: the model stays, and everybody reads why."""
    result = _result(state, previous_state)
    result.no_step_code, result.no_step_sentence = code, sentence[:MAX_TEXT_CHARS]
    return result


def _result(state: RoundState, previous_state: BlobRef | None) -> Result:
    """What a result says before its step."""
    plan = state.plan.plan
    result = Result(
        suite=SUITE,
        plan_digest=state.plan.digest,
        task=plan.task,
        round_number=plan.round_number,
        previous_result_digest=plan.previous_result_digest,
        cohorts=[_cohort_result(state, row) for row in state.cohorts],
        checkpoint=plan.checkpoint,
        finished_at_s=max(row.phase_since_ms for row in state.cohorts) // _MS_PER_S,
        bundle_digest=plan.bundle.digest,
    )
    if previous_state is not None and previous_state.digest:
        result.optimiser_state.CopyFrom(previous_state)
    return result


def _step(state: RoundState, sums: list[CohortSum], result: Result, blobs: BlobStore) -> None:
    plan = state.plan.plan
    before = float_tensors(blobs.read(result.optimiser_state.digest)) if result.HasField("optimiser_state") else None
    stepped = next_checkpoint(plan, sums, float_tensors(blobs.read(plan.checkpoint.digest)), before)
    result.counts.extend(count_sums(stepped.counts))
    if stepped.no_step is not None:
        result.no_step_code, result.no_step_sentence = stepped.no_step.code, stepped.no_step.sentence
        return
    result.checkpoint.CopyFrom(_store(stepped.parameters, blobs))
    result.ClearField("optimiser_state")
    if stepped.state:
        result.optimiser_state.CopyFrom(_store(stepped.state, blobs))


def took_step(result: Result) -> bool:
    """Whether a round moved the model."""
    opened = any(one.outcome == COHORT_OUTCOME_OPENED for one in result.cohorts)
    return opened and not result.no_step_code


def _decode(state: RoundState, row: CohortRow, blobs: BlobStore) -> CohortSum:
    packed = blobs.read(row.sum_digest or b"", "blake3")
    decoded = decode_opened(state.plan, packed, state.openings_digest(row.cohort), row.set_size)
    answers = [parse_strict(Answer, signed.payload) for signed in state.signed_words(row.cohort, "answer")]
    return CohortSum(decoded, row.set_size, any(answer.noise_multiplier_e6 for answer in answers))


def _cohort_result(state: RoundState, row: CohortRow) -> CohortResult:
    if phase_of(row) is not CohortPhase.OPENED:
        return CohortResult(cohort=row.cohort, outcome=COHORT_OUTCOME_LEFT_OUT, code=row.code, sentence=row.sentence)
    answers = state.signed_words(row.cohort, "answer")
    return CohortResult(
        cohort=row.cohort,
        outcome=COHORT_OUTCOME_OPENED,
        set_root=parse_strict(Answer, answers[0].payload).set_root,
        set_size=row.set_size,
        sum_digest=row.sum_digest or b"",
        sum_bytes=row.sum_bytes,
        answers_digest=words_digest(answers),
    )


def _store(tensors: Mapping[str, FloatArray], blobs: BlobStore) -> BlobRef:
    data = encode_tensors(tensors)
    return BlobRef(digest=blobs.put(data), size_bytes=len(data))
