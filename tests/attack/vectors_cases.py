"""Vectors that are not what a device may send, and sums that no honest set can have made."""

from __future__ import annotations

import numpy as np
from attack_cases import Attempt, attack
from attack_field import Field
from guard_switch import Guard

from bedside.core.codec import decoder
from bedside.core.securesum import ring
from bedside.core.securesum.aggregator import Aggregate


def _aggregate(field: Field, word_bits: int) -> tuple[Aggregate, bytes]:
    plan = field.plan(word_bits=word_bits, max_contributors=8)
    words = field.world.random_words(plan, 1)
    return Aggregate(plan.layout, word_bits), ring.pack(words, word_bits)


@attack("T1", "wrong-length", Guard(ring.unpack, "wrong-length"))
def an_over_long_vector(field: Field) -> Attempt:
    aggregate, packed = _aggregate(field, 13)
    return lambda: aggregate.add_upload(packed + b"\0")


@attack("T1", "padding-not-zero", Guard(ring.unpack, "padding-not-zero"))
def a_vector_that_says_something_in_its_padding(field: Field) -> Attempt:
    aggregate, packed = _aggregate(field, 13)
    return lambda: aggregate.add_upload(packed[:-1] + bytes([packed[-1] | 0x80]))


@attack("T1", "wrong-length", Guard(ring.unpack, "wrong-length"))
def an_answer_of_another_length(field: Field) -> Attempt:
    aggregate, packed = _aggregate(field, 13)
    return lambda: aggregate.subtract_answer(packed + b"\0\0")


@attack("T1", "sum-incomplete", Guard(Aggregate.opened, "sum-incomplete"))
def a_sum_opened_before_every_trustee_answered(field: Field) -> Attempt:
    aggregate, packed = _aggregate(field, 16)
    for _ in range(3):
        aggregate.add_upload(packed)
    aggregate.subtract_answer(packed)
    return lambda: aggregate.opened(3, 3)


@attack("T7", "sum-out-of-bounds", Guard(decoder.check_sum, "_out_of_bounds"))
def an_update_longer_than_the_clip(field: Field) -> Attempt:
    """Among three devices one that ignores the clip shows in the norm of the sum."""
    plan = field.plan()
    words = np.zeros(plan.vector_words, np.uint16)
    for segment, place in plan.layout.placed():
        words[place] = segment.largest_word * 3 if segment.kind.name == "VALUE" else 3
    return lambda: decoder.check_sum(words, plan.layout, 3, word_bits=16)


@attack("T7", "sum-out-of-bounds", Guard(decoder.check_sum, "_out_of_bounds"))
def a_count_above_its_cap(field: Field) -> Attempt:
    plan = field.plan()
    words = np.zeros(plan.vector_words, np.uint16)
    for segment, place in plan.layout.placed():
        words[place] = segment.half_levels * 3 if segment.kind.name == "VALUE" else 400 * 3 + 1
    return lambda: decoder.check_sum(words, plan.layout, 3, word_bits=16)
