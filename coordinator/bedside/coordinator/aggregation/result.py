"""The end of a round: combine the cohorts' sums, step the server optimiser, and state the result.

Invariant: everything here follows from stored bytes, finish time included, so that a coordinator killed between seal
and result signs the identical result after its restart (Ed25519 is deterministic too).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bedside.coordinator.blobs import BlobStore
from bedside.coordinator.rounds.plans import EXAMPLES
from bedside.coordinator.rounds.state import RoundState, phase_of
from bedside.coordinator.store.contributions import CohortRow
from bedside.core.bundle.tensors import decode_tensors, encode_tensors
from bedside.core.codec.decoder import DecodedSum, decode_sum
from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.learning.combiners import CohortSum, combiner_of
from bedside.core.learning.optimisers import server_optimiser
from bedside.core.learning.weighting import Weighting, bounded_examples
from bedside.core.securesum.aggregator import CohortPhase
from bedside.core.securesum.messages import words_digest
from bedside.core.securesum.plans import rotation_seed
from bedside.core.securesum.ring import unpack
from bedside.core.signing import parse_strict
from bedside.core.signing.envelope import SUITE
from bedside.proto.v1.common_pb2 import BlobRef
from bedside.proto.v1.plan_pb2 import SERVER_OPTIMISER_FEDAVG
from bedside.proto.v1.round_pb2 import (
    COHORT_OUTCOME_LEFT_OUT,
    COHORT_OUTCOME_OPENED,
    Answer,
    CohortResult,
    CountSum,
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
        StoreError: `no-blob`.
        ProtocolError: `no-examples`, when the opened counts give no weight.
    """
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
    opened = [row for row in state.cohorts if phase_of(row) is CohortPhase.OPENED]
    if opened:
        sums = [_decode(state, row, blobs) for row in opened]
        counts = _sum_counts(sums)
        result.counts.extend(CountSum(name=name, sum=max(0, value)) for name, value in counts.items())
        combiner = combiner_of(plan.server.combiner, plan.server.trim_cohorts, len(plan.cohorts), plan.subsample_e32)
        try:
            combiner.check_opened(len(sums))
        except ProtocolError as error:
            result.no_step_code, result.no_step_sentence = error.code, error.sentence
        else:
            cohorts = [_cohort_sum(state, row, decoded) for row, decoded in zip(opened, sums, strict=True)]
            training = plan.training
            mean = combiner.combine(cohorts, Weighting(training.weighting), training.max_examples)
            _step(state, mean, result, blobs)
    return result


def took_step(result: Result) -> bool:
    """Whether a round moved the model."""
    opened = any(one.outcome == COHORT_OUTCOME_OPENED for one in result.cohorts)
    return opened and not result.no_step_code


def _step(state: RoundState, mean: dict[str, FloatArray], result: Result, blobs: BlobStore) -> None:
    plan = state.plan.plan
    server = plan.server
    optimiser = server_optimiser(
        server.optimiser,
        learning_rate_e6=server.learning_rate_e6,
        beta1_e6=server.beta1_e6,
        beta2_e6=server.beta2_e6,
        tau_e9=server.tau_e9,
    )
    parameters = _float_tensors(blobs.read(plan.checkpoint.digest))
    known = result.HasField("optimiser_state") and server.optimiser != SERVER_OPTIMISER_FEDAVG
    before = _float_tensors(blobs.read(result.optimiser_state.digest)) if known else None
    stepped = optimiser.step(parameters, mean, before or optimiser.initial_state(parameters))
    result.checkpoint.CopyFrom(_store(stepped.parameters, blobs))
    result.ClearField("optimiser_state")
    if stepped.state:
        result.optimiser_state.CopyFrom(_store(stepped.state, blobs))


def _decode(state: RoundState, row: CohortRow, blobs: BlobStore) -> DecodedSum:
    plan = state.plan
    packed = blobs.read(row.sum_digest or b"", "blake3")
    words = unpack(packed, plan.vector_words, plan.plan.word_bits)
    seed = rotation_seed(plan.digest, state.openings_digest(row.cohort))
    return decode_sum(words, plan.layout, seed, row.set_size, word_bits=plan.plan.word_bits)


def _sum_counts(sums: list[DecodedSum]) -> dict[str, int]:
    """Counts over all opened cohorts, also where a combiner leaves cohorts out."""
    return {name: sum(int(one.counts[name].sum()) for one in sums) for name in sums[0].counts}


def _cohort_sum(state: RoundState, row: CohortRow, decoded: DecodedSum) -> CohortSum:
    """One cohort for the combiner; a count that noise has moved is brought back to what its devices can have had."""
    training = state.plan.plan.training
    examples = int(decoded.counts[EXAMPLES].sum())
    if _has_noise(state, row):
        examples = bounded_examples(examples, row.set_size, training.min_examples, training.max_examples)
    return CohortSum(decoded.tensors, row.set_size, examples)


def _has_noise(state: RoundState, row: CohortRow) -> bool:
    answers = [parse_strict(Answer, signed.payload) for signed in state.signed_words(row.cohort, "answer")]
    return any(answer.noise_multiplier_e6 for answer in answers)


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


def _float_tensors(data: bytes) -> dict[str, FloatArray]:
    tensors: dict[str, FloatArray] = {}
    for name, array in decode_tensors(data).items():
        if array.dtype != np.float32:
            raise MalformedError("bad-checkpoint", f"tensor {name!r} of a checkpoint is not float32")
        tensors[name] = array.astype(np.float32, copy=False)
    return tensors


def _store(tensors: Mapping[str, FloatArray], blobs: BlobStore) -> BlobRef:
    data = encode_tensors(tensors)
    return BlobRef(digest=blobs.put(data), size_bytes=len(data))
