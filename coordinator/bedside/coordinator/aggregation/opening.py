"""Opening a cohort's sum from what is stored: `core.securesum.opening` around the blobs.

Invariants:
    * Memory of one vector and a few uploads, whatever the number of devices.
    * Every upload's BLAKE3 is verified again when it is added, so that a disk that rots cannot pass unseen.
    * The same stored bytes give the same sum: doing it again after a crash changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from bedside.coordinator.aggregation.running import RunningSums
from bedside.coordinator.blobs import BlobStore
from bedside.coordinator.rounds.state import RoundState
from bedside.core.learning.step import CohortSum, check_weight
from bedside.core.securesum.opening import MaskSum, check_opened, decode_opened, open_sum
from bedside.core.signing import parse_strict
from bedside.proto.v1.round_pb2 import Answer


@dataclass(frozen=True, slots=True)
class OpenedSum:
    """An opened sum, packed, and stored under its BLAKE3 digest."""

    digest: bytes
    size_bytes: int


def open_stored_sum(state: RoundState, cohort: int, blobs: BlobStore, running: RunningSums) -> OpenedSum:
    """Add what a sealed cohort's running sum lacks, take the answers away, check the bounds, and store the sum.

    Raises:
        StoreError: `blob-damaged`, when stored bytes are not what was accepted.
        ProtocolError: `sum-out-of-bounds`, when no set of honest devices can have made this sum.
        MalformedError: a vector does not fit the plan.
    """
    plan = state.plan
    counted = [upload for upload in state.uploads if upload.cohort == cohort and upload.counted]
    answers = [parse_strict(Answer, signed.payload) for signed in state.signed_words(cohort, "answer")]
    packed, multipliers_e6 = open_sum(
        running.take(plan, cohort, {upload.header_digest: upload.upload_blake3 for upload in counted}),
        (MaskSum(answer, blobs.read(answer.mask_sum_digest, "blake3")) for answer in answers),
        contributors=len(counted),
        trustees=len(answers),
    )
    check_opened(plan, packed, len(counted), multipliers_e6)
    decoded = decode_opened(plan, packed, state.openings_digest(cohort), len(counted))
    check_weight(plan.plan, CohortSum(decoded, len(counted), any(multipliers_e6)))
    return OpenedSum(blobs.put(packed, "blake3"), len(packed))
