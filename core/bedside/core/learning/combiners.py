"""From the sums of several cohorts to one mean delta, the same bits on every machine.

MEAN adds the cohorts' sums in the order of the plan and divides once, as if they were one sum: with EXAMPLES
weighting each device counts by its examples, whichever cohort it is in.

TRIMMED_MEAN and MEDIAN first take each cohort's mean over its own devices (by its own examples where the plan weighs
by examples). From there on cohorts count alike, however large: a weight that a cohort states about itself is one
that a compromised site could choose. Coordinate by coordinate the c cohort means are sorted; the trimmed mean
leaves out the f lowest and the f highest and averages the rest, and the median is the trimmed mean that leaves one
(c odd) or two (c even: their mean is taken). With at most f compromised cohorts and 2 f < c, each coordinate of the
trimmed mean lies between the lowest and the highest value of honest cohorts. Equal values need no rule: whichever is
left out, the same number stays. Minus zero is made plus zero before sorting, since an order of the two is not
defined.

Every operation is one IEEE 754 float32 operation per element in a fixed order (lowest to highest), never a
reduction, never BLAS. This bounds what f sites can do to one coordinate; it does not find a backdoor.

Source: Yin et al., Byzantine-Robust Distributed Learning, ICML 2018, definitions 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.learning.weighting import Weighting, mean_delta

FloatArray = npt.NDArray[np.float32]

MIN_ROBUST_COHORTS: Final = 3
"""Cohorts that a trimmed mean or median needs: of two, nobody can say which one lies."""
_CHUNK_WORDS: Final = 1 << 16
"""Coordinates that are sorted at a time, so that the copy stays small."""


class CombinerKind(IntEnum):
    """Numbered as on the wire, where 0 reads as the mean."""

    MEAN = 1
    TRIMMED_MEAN = 2
    MEDIAN = 3


class CohortPart(NamedTuple):
    """One cohort's opened sum.

    Attributes:
        tensors: decoded float32 sums by name.
        contributors: devices in the sum.
        examples: the opened sum of `counted_examples` (EXAMPLES only).
    """

    tensors: Mapping[str, FloatArray]
    contributors: int
    examples: int


@dataclass(frozen=True, slots=True)
class Combiner:
    """How the cohorts of one plan become one mean delta.

    Attributes:
        kind: MEAN, TRIMMED_MEAN or MEDIAN.
        trim_cohorts: f, cohorts left out at either end of every coordinate (TRIMMED_MEAN only).
    """

    kind: CombinerKind = CombinerKind.MEAN
    trim_cohorts: int = 0

    @property
    def least_cohorts(self) -> int:
        """Opened cohorts without which there is no step."""
        if self.kind is CombinerKind.MEAN:
            return 1
        return max(MIN_ROBUST_COHORTS, 2 * self.trim_cohorts + 1)

    def check_opened(self, cohorts: int) -> None:
        """Refuse to combine fewer cohorts than the combiner needs.

        Raises:
            ProtocolError: `too-few-cohorts`.
        """
        if cohorts < self.least_cohorts:
            raise ProtocolError(
                "too-few-cohorts",
                f"{cohorts} cohorts were opened and the {self} needs {self.least_cohorts}: the model stays as it was",
                remedy="see why the others were left out, or plan smaller cohorts",
            )

    def combine(self, cohorts: Sequence[CohortPart], weighting: Weighting, cap: int) -> dict[str, FloatArray]:
        """The mean delta of one round.

        Args:
            cohorts: the opened sums in the order of the plan, all with the same names and shapes.
            weighting: what the plan says.
            cap: the plan's cap of examples per device (EXAMPLES only).

        Returns:
            New float32 arrays by name.

        Raises:
            ProtocolError: `too-few-cohorts`, `no-examples`, or `delta-not-finite`.
        """
        self.check_opened(len(cohorts))
        if self.kind is CombinerKind.MEAN:
            return _mean(cohorts, weighting, cap)
        trim = self.trim_cohorts if self.kind is CombinerKind.TRIMMED_MEAN else (len(cohorts) - 1) // 2
        means = [mean_delta(one.tensors, weighting, one.contributors, one.examples, cap) for one in cohorts]
        return {name: _trimmed([mean[name] for mean in means], trim, name) for name in means[0]}

    def __str__(self) -> str:
        """For sentences and screens."""
        if self.kind is CombinerKind.TRIMMED_MEAN:
            return f"trimmed mean ({self.trim_cohorts} left out at either end)"
        return "median" if self.kind is CombinerKind.MEDIAN else "mean"


def combiner_of(kind: int, trim_cohorts: int, cohorts: int, subsample_e32: int = 0) -> Combiner:
    """The combiner that a plan of so many cohorts names by the number on the wire.

    Raises:
        MalformedError: `bad-combiner` for an unknown kind, too few cohorts, a trim outside 1 <= f, 2 f < c, or a robust
            combiner of subsampled updates: every cohort draws its own coordinates, so that there is nothing to compare.
    """
    if kind not in (0, *CombinerKind):
        raise _bad(f"combiner {kind} is unknown")
    combiner = Combiner(CombinerKind(kind or CombinerKind.MEAN), trim_cohorts)
    if (combiner.kind is CombinerKind.TRIMMED_MEAN) != (trim_cohorts > 0):
        raise _bad("a trimmed mean leaves out at least one cohort at either end, and no other combiner leaves out any")
    if cohorts < combiner.least_cohorts:
        raise _bad(f"a {combiner} needs at least {combiner.least_cohorts} cohorts; the plan has {cohorts}")
    if subsample_e32 and combiner.kind is not CombinerKind.MEAN:
        raise _bad(f"a {combiner} compares cohorts by coordinate, and a plan that subsamples has each draw its own")
    return combiner


def _mean(cohorts: Sequence[CohortPart], weighting: Weighting, cap: int) -> dict[str, FloatArray]:
    total = dict(cohorts[0].tensors)
    for later in cohorts[1:]:
        total = {name: value + later.tensors[name] for name, value in total.items()}
    contributors = sum(one.contributors for one in cohorts)
    return mean_delta(total, weighting, contributors, sum(one.examples for one in cohorts), cap)


def _trimmed(parts: Sequence[FloatArray], trim: int, name: str) -> FloatArray:
    """Mean of what is left between the `trim` lowest and highest values of every coordinate."""
    flat = [part.reshape(-1) for part in parts]
    out = np.empty(flat[0].size, np.float32)
    count = np.float32(len(flat) - 2 * trim)
    for start in range(0, out.size, _CHUNK_WORDS):
        stack = np.stack([part[start : start + _CHUNK_WORDS] for part in flat])
        if not np.isfinite(stack).all():
            raise ProtocolError("delta-not-finite", f"a cohort's mean of {name!r} is not finite and has no order")
        stack += np.float32(0)  # minus zero becomes plus zero
        stack.sort(axis=0)
        total = stack[trim].copy()
        for row in stack[trim + 1 : len(flat) - trim]:
            total += row
        np.divide(total, count, out=out[start : start + total.size])
    return out.reshape(parts[0].shape)


def _bad(sentence: str) -> MalformedError:
    return MalformedError("bad-combiner", sentence, remedy="name more cohorts with --cohort, or choose --combiner mean")
