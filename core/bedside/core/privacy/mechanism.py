"""Which noise: from one multiplier z for the whole vector to a standard deviation per segment.

Neighbouring relation: two rounds that differ in one device's contribution, which is present in the one and replaced in
the other by a contribution that says nothing (all values and counts zero). That the device took part stays visible.

Sensitivity of a segment, in ring steps, L2, after stochastic rounding:
    * VALUE: clip / step + sqrt(words), since rounding moves each word by less than a step;
    * COUNT: cap sqrt(words).

With m segments, segment s gets sigma_s = z sensitivity_s sqrt(m). One device then moves the whole vector, each segment
measured in its own sigma, by at most sqrt(m / (m z^2)) = 1 / z: the vector is one Gaussian mechanism of multiplier z,
rho = 1 / (2 z^2) in zCDP. The discrete Gaussian keeps that exactly (Canonne, Kamath, Steinke, 2020, Theorem 14).

Every trustee adds all of it; whatever the other trustees add is extra (rule T5).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from bedside.core.codec.layout import Layout, Segment, SegmentKind
from bedside.core.privacy.gaussian import ONE_E6, largest_draw

_MARGIN: Final = 1 + 1e-9
"""Covers the float64 rounding of a sigma, upwards."""


def sensitivity(segment: Segment) -> float:
    """How far one device can move a segment of the sum, L2, in ring steps."""
    if segment.kind is SegmentKind.COUNT:
        return segment.cap * math.sqrt(segment.words)
    return segment.clip / segment.step + math.sqrt(segment.words)


def segment_sigmas_e6(layout: Layout, multiplier_e6: int) -> list[int]:
    """Standard deviation of the noise on each segment's words, millionths of a ring step, rounded up."""
    scale = multiplier_e6 * math.sqrt(len(layout.segments)) * _MARGIN
    return [math.ceil(scale * sensitivity(segment)) for segment in layout.segments]


def noise_tails(layout: Layout, multipliers_e6: Iterable[int]) -> list[int]:
    """Per segment, the distance between the lowest and the highest noise of all trustees together on one word.

    Args:
        layout: the plan's layout.
        multipliers_e6: noise multiplier of each trustee.

    Raises:
        ProtocolError: `noise-too-large`.
    """
    tails = [0] * len(layout.segments)
    for multiplier_e6 in multipliers_e6:
        for place, sigma_e6 in enumerate(segment_sigmas_e6(layout, multiplier_e6)):
            tails[place] += 2 * largest_draw(sigma_e6)
    return tails


def check_ring(layout: Layout, contributors: int, word_bits: int, multipliers_e6: Iterable[int]) -> None:
    """The overflow rule: n (2^bits - 1) + K tail < 2^w in every segment.

    Raises:
        ProtocolError: `ring-overflow` or `noise-too-large`.
    """
    layout.check_fits(contributors, word_bits, noise_tails(layout, multipliers_e6))


def multiplier_e6(multiplier: float) -> int:
    """A policy's or operator's multiplier as it stands on the wire; rounded up, so that it is never less."""
    return math.ceil(multiplier * ONE_E6 * (1 - 1e-12))
