"""The coordinator's part of a round: add masked vectors, subtract the answers, open one sum.

It never holds an unmasked vector of one device: masks come off the sum only, and only when every trustee has answered
for exactly the sealed set.

Source: DESIGN section 5, steps 4 to 6.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import numpy as np

from bedside.core.codec.layout import Layout
from bedside.core.errors import ProtocolError
from bedside.core.securesum.machine import Machine
from bedside.core.securesum.ring import Words, pack, reduce_in_place, unpack, word_dtype


class CohortPhase(Enum):
    """Where a cohort stands."""

    OPENING = "opening"
    COLLECTING = "collecting"
    SEALED = "sealed"
    REVEALING = "revealing"
    ANSWERED = "answered"
    OPENED = "opened"
    LEFT_OUT = "left-out"


class CohortInput(Enum):
    """What can happen to a cohort."""

    ALL_OPENED = "all-opened"
    SEAL = "seal"
    ALL_VOTED = "all-voted"
    ALL_ANSWERED = "all-answered"
    SUM_HOLDS = "sum-holds"
    SUM_FAILS = "sum-fails"
    TRUSTEE_REFUSED = "trustee-refused"
    TRUSTEE_CLOSED = "trustee-closed"
    TOO_FEW = "too-few"
    TIMED_OUT = "timed-out"
    STOPPED = "stopped"


_S, _I = CohortPhase, CohortInput
_ENDINGS = (_I.TRUSTEE_REFUSED, _I.TRUSTEE_CLOSED, _I.TIMED_OUT, _I.STOPPED)
COHORT: Final = Machine(
    "cohort",
    {
        (_S.OPENING, _I.ALL_OPENED): _S.COLLECTING,
        (_S.COLLECTING, _I.SEAL): _S.SEALED,
        (_S.COLLECTING, _I.TOO_FEW): _S.LEFT_OUT,
        (_S.SEALED, _I.ALL_VOTED): _S.REVEALING,
        (_S.REVEALING, _I.ALL_ANSWERED): _S.ANSWERED,
        (_S.ANSWERED, _I.SUM_HOLDS): _S.OPENED,
        (_S.ANSWERED, _I.SUM_FAILS): _S.LEFT_OUT,
        **{
            (phase, ending): _S.LEFT_OUT
            for phase in (_S.OPENING, _S.COLLECTING, _S.SEALED, _S.REVEALING)
            for ending in _ENDINGS
        },
    },
)
"""A cohort's machine."""


def advance(phase: CohortPhase, event: CohortInput) -> CohortPhase:
    """The next phase; raises ProtocolError `bad-transition`."""
    return COHORT.advance(phase, event)


class Aggregate:
    """A running sum in the ring: memory of one vector and one upload, whatever the number of devices."""

    def __init__(self, layout: Layout, word_bits: int) -> None:
        self._layout = layout
        self._word_bits = word_bits
        self._words = np.zeros(layout.words, word_dtype(word_bits))
        self.uploads = 0
        self.answers = 0

    def add_upload(self, packed: bytes | memoryview) -> None:
        """Add one masked vector.

        Raises:
            MalformedError: `wrong-length` or `padding-not-zero`.
        """
        np.add(self._words, self._unpack(packed), out=self._words)
        self.uploads += 1

    def drop_upload(self, packed: bytes | memoryview) -> None:
        """Take one masked vector that was added out again; raises as `add_upload`."""
        np.subtract(self._words, self._unpack(packed), out=self._words)
        self.uploads -= 1

    def subtract_answer(self, packed: bytes | memoryview) -> None:
        """Take one trustee's sum of masks away; raises as `add_upload`."""
        np.subtract(self._words, self._unpack(packed), out=self._words)
        self.answers += 1

    def opened(self, uploads: int, answers: int) -> Words:
        """The opened sum, shape (words,), once exactly the sealed set and all trustees are in it.

        Raises:
            ProtocolError: `sum-incomplete`.
        """
        if (self.uploads, self.answers) != (uploads, answers):
            raise ProtocolError("sum-incomplete", "the sum does not hold exactly the set and all answers")
        reduce_in_place(self._words, self._word_bits)
        return self._words

    def packed(self) -> bytes:
        """The reduced sum as it is stored and digested."""
        reduce_in_place(self._words, self._word_bits)
        return pack(self._words, self._word_bits)

    def _unpack(self, packed: bytes | memoryview) -> Words:
        return unpack(packed, self._layout.words, self._word_bits)
