"""Opening a cohort's sum.

Invariants:
    * Memory of one vector and a few uploads, whatever the number of devices.
    * Every upload's BLAKE3 is verified again when it is added, so that a disk that rots cannot pass unseen.
    * The same stored bytes give the same sum: doing it again after a crash changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from bedside.coordinator.aggregation.running import RunningSums, verified
from bedside.coordinator.blobs import BlobStore
from bedside.coordinator.rounds.plans import EXAMPLES
from bedside.coordinator.rounds.state import RoundState
from bedside.core.codec.decoder import check_sum, decode_sum
from bedside.core.errors import ProtocolError
from bedside.core.privacy import noise_tails
from bedside.core.securesum.plans import rotation_seed
from bedside.core.securesum.ring import Words
from bedside.core.signing import parse_strict
from bedside.proto.v1.plan_pb2 import WEIGHTING_EXAMPLES
from bedside.proto.v1.round_pb2 import Answer


@dataclass(frozen=True, slots=True)
class OpenedSum:
    """An opened sum, packed, and stored under its BLAKE3 digest."""

    digest: bytes
    size_bytes: int


def open_sum(state: RoundState, cohort: int, blobs: BlobStore, running: RunningSums) -> OpenedSum:
    """Add what a sealed cohort's running sum lacks, take the answers away, check the bounds, and store the sum.

    Raises:
        StoreError: `blob-damaged`, when stored bytes are not what was accepted.
        ProtocolError: `sum-out-of-bounds`, when no set of honest devices can have made this sum, or `no-examples`.
        MalformedError: a vector does not fit the plan.
    """
    plan = state.plan
    counted = [upload for upload in state.uploads if upload.cohort == cohort and upload.counted]
    answers = [parse_strict(Answer, signed.payload) for signed in state.signed_words(cohort, "answer")]
    aggregate = running.take(plan, cohort, {upload.header_digest: upload.upload_blake3 for upload in counted})
    for answer in answers:
        aggregate.subtract_answer(verified(blobs, answer.mask_sum_digest))
    words = aggregate.opened(len(counted), len(answers))
    tails = noise_tails(plan.layout, [answer.noise_multiplier_e6 for answer in answers])
    check_sum(words, plan.layout, len(counted), word_bits=plan.plan.word_bits, noise_tails=tails)
    if not any(answer.noise_multiplier_e6 for answer in answers):
        _check_weight(state, cohort, words, len(counted))
    packed = aggregate.packed()
    return OpenedSum(blobs.put(packed, "blake3"), len(packed))


def _check_weight(state: RoundState, cohort: int, words: Words, contributors: int) -> None:
    """A sum without any examples has no mean; its cohort is left out rather than the round lost.

    With noise the count says nothing of the kind: `bounded_examples` keeps it within what honest devices count.
    """
    plan = state.plan
    seed = rotation_seed(plan.digest, state.openings_digest(cohort))
    decoded = decode_sum(words, plan.layout, seed, contributors, word_bits=plan.plan.word_bits)
    weighted = plan.plan.training.weighting == WEIGHTING_EXAMPLES
    if weighted and int(decoded.counts[EXAMPLES].sum()) < 1:
        raise ProtocolError("no-examples", "the devices of this cohort counted no examples")
