"""Opening a cohort's sum: masked uploads minus answers, bounded, decoded.

Memory of one vector and one upload, whatever the number of devices: uploads are taken one after another. The
coordinator opens with this, and an auditor opens again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bedside.core.codec.decoder import DecodedSum, check_sum, decode_sum
from bedside.core.privacy import noise_tails
from bedside.core.securesum.aggregator import Aggregate
from bedside.core.securesum.plans import CheckedPlan, rotation_seed
from bedside.core.securesum.ring import unpack
from bedside.proto.v1.round_pb2 import Answer


class OpenedSum(NamedTuple):
    """An opened sum.

    Attributes:
        packed: its words.
        contributors: devices in it.
        noise_multipliers_e6: noise that each trustee's answer says it has added.
    """

    packed: bytes
    contributors: int
    noise_multipliers_e6: tuple[int, ...]

    @property
    def is_noisy(self) -> bool:
        """Whether any trustee added noise."""
        return any(self.noise_multipliers_e6)


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


def open_sum(aggregate: Aggregate, answers: Iterable[MaskSum], *, contributors: int, trustees: int) -> OpenedSum:
    """Take all answers away from the sum of a sealed set's uploads.

    Args:
        aggregate: of exactly the set's uploads; it is used up.
        answers: of the cohort's trustees.
        contributors: devices of the sealed set.
        trustees: of the cohort.

    Returns:
        The packed sum, and whose noise is in it.

    Raises:
        ProtocolError: `sum-incomplete`.
        MalformedError: `wrong-length` or `padding-not-zero`.
    """
    noise = []
    for answer, packed in answers:
        aggregate.subtract_answer(packed)
        noise.append(answer.noise_multiplier_e6)
    aggregate.opened(contributors, trustees)
    return OpenedSum(aggregate.packed(), contributors, tuple(noise))


def check_opened(plan: CheckedPlan, opened: OpenedSum) -> None:
    """Refuse a sum that no set of honest devices, with that noise, can have made; raises as `check_sum`."""
    words = unpack(opened.packed, plan.vector_words, plan.plan.word_bits)
    tails = noise_tails(plan.layout, opened.noise_multipliers_e6)
    check_sum(words, plan.layout, opened.contributors, word_bits=plan.plan.word_bits, noise_tails=tails)


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
