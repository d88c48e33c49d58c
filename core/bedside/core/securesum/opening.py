"""Opening a cohort's sum: masked uploads minus answers, bounded, decoded.

Memory of one vector and one upload, whatever the number of devices: uploads are taken one after another. The
coordinator opens with this, and an auditor opens again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bedside.core.codec.decoder import DecodedSum, check_sum, decode_sum
from bedside.core.privacy import noise_tails
from bedside.core.securesum.aggregator import Aggregate
from bedside.core.securesum.plans import CheckedPlan, rotation_seed
from bedside.core.securesum.ring import unpack
from bedside.proto.v1.round_pb2 import Answer


class MaskSum(NamedTuple):
    """A trustee's answer with its packed words."""

    answer: Answer
    packed: bytes


def added(plan: CheckedPlan, uploads: Iterable[bytes]) -> Aggregate:
    """The sum of packed masked vectors, read one after another; raises as `Aggregate.add_upload`."""
    aggregate = Aggregate(plan.layout, plan.plan.word_bits)
    for packed in uploads:
        aggregate.add_upload(packed)
    return aggregate


def open_sum(
    aggregate: Aggregate, answers: Iterable[MaskSum], *, contributors: int, trustees: int
) -> tuple[bytes, list[int]]:
    """Take all answers away from the sum of a sealed set's uploads.

    Args:
        aggregate: of exactly the set's uploads; it is used up.
        answers: of the cohort's trustees.
        contributors: devices of the sealed set.
        trustees: of the cohort.

    Returns:
        The packed opened sum, and the noise multiplier of each answer in it, in millionths.

    Raises:
        ProtocolError: `sum-incomplete`.
        MalformedError: `wrong-length` or `padding-not-zero`.
    """
    multipliers_e6 = []
    for answer, packed in answers:
        aggregate.subtract_answer(packed)
        multipliers_e6.append(answer.noise_multiplier_e6)
    aggregate.opened(contributors, trustees)
    return aggregate.packed(), multipliers_e6


def check_opened(plan: CheckedPlan, packed: bytes, contributors: int, multipliers_e6: Sequence[int]) -> None:
    """Refuse a sum that no set of honest devices, with that noise, can have made; raises as `check_sum`."""
    words = unpack(packed, plan.vector_words, plan.plan.word_bits)
    tails = noise_tails(plan.layout, multipliers_e6)
    check_sum(words, plan.layout, contributors, word_bits=plan.plan.word_bits, noise_tails=tails)


def decode_opened(plan: CheckedPlan, packed: bytes, openings_digest: bytes, contributors: int) -> DecodedSum:
    """What an opened sum says.

    Args:
        plan: the plan.
        packed: the opened sum.
        openings_digest: of the cohort; with H it seeds the rotation.
        contributors: devices in the sum.

    Raises:
        MalformedError, ProtocolError: as `decode_sum`.
    """
    words = unpack(packed, plan.vector_words, plan.plan.word_bits)
    seed = rotation_seed(plan.digest, openings_digest)
    return decode_sum(words, plan.layout, seed, contributors, word_bits=plan.plan.word_bits)
