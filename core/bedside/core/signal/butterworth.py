"""Butterworth and notch filters as second-order sections.

A section (b0, b1, b2, a1, a2) is y[n] = b0 x[n] + b1 x[n-1] + b2 x[n-2] - a1 y[n-1] - a2 y[n-2].

Source: Oppenheim & Schafer, Discrete-Time Signal Processing, 3rd ed., section 7.2 (bilinear transform) and appendix B
(Butterworth); Orfanidis, Introduction to Signal Processing, section 11.3 (notch).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from typing import Final

Section = tuple[float, float, float, float, float]

_SETTLED: Final = 1e-3
"""What is left of a step when a filter counts as settled: 60 dB."""


def butterworth(order: int, rate_hz: float, *, low_hz: float = 0.0, high_hz: float = 0.0) -> tuple[Section, ...]:
    """Design a band-pass from `low_hz` to `high_hz`; without `low_hz` a low-pass, without `high_hz` a high-pass.

    Args:
        order: of the low-pass prototype; a band-pass has twice as many poles.
        rate_hz: samples per second.
        low_hz: frequency of -3 dB below the band; 0 for none.
        high_hz: the same above it; 0 for none.

    Returns:
        Sections whose gain is 1 in the middle of the band.

    Raises:
        ValueError: the frequencies are not 0 <= low_hz < high_hz < rate_hz / 2, or there is none, or order < 1.
    """
    nyquist_hz = rate_hz / 2
    edges_hz = [edge for edge in (low_hz, high_hz) if edge]
    if order < 1 or not edges_hz or edges_hz != sorted(set(edges_hz)) or not 0 < min(edges_hz) <= max(edges_hz):
        raise ValueError("a filter has an order of at least 1 and 0 <= low_hz < high_hz")
    if max(edges_hz) >= nyquist_hz:
        raise ValueError(f"{max(edges_hz):g} Hz is not below half the rate of {rate_hz:g} Hz")
    prototype = [cmath.exp(1j * math.pi * (2 * k + order + 1) / (2 * order)) for k in range(order)]
    low, high = (math.tan(math.pi * edge / rate_hz) for edge in (low_hz, high_hz))
    if low_hz and high_hz:
        poles = [pole for p in prototype for pole in _band(p * (high - low) / 2, low * high)]
        zeros, middle = (1.0, -1.0) * order, 2 * math.atan(math.sqrt(low * high))
    elif high_hz:
        poles, zeros, middle = [high * p for p in prototype], (-1.0,) * order, 0.0
    else:
        poles, zeros, middle = [low / p for p in prototype], (1.0,) * order, math.pi
    return _sections([(1 + pole) / (1 - pole) for pole in poles], zeros, middle)


def notch(centre_hz: float, rate_hz: float, quality: float) -> Section:
    """Design a notch: gain 0 at `centre_hz`, -3 dB on a width of `centre_hz / quality`.

    Raises:
        ValueError: the centre is not between 0 and half the rate, or the quality is not above 0.
    """
    if not 0 < centre_hz < rate_hz / 2 or not quality > 1:
        raise ValueError(f"a notch lies between 0 and {rate_hz / 2:g} Hz and has a quality above 1")
    angle = 2 * math.pi * centre_hz / rate_hz
    share = 1 / (1 + math.tan(angle / (2 * quality)))
    cosine = -2 * share * math.cos(angle)
    return (share, cosine, share, cosine, 2 * share - 1)


def pole_radius(section: Section) -> float:
    """Magnitude of the larger pole; the section is stable when it is below 1."""
    a1, a2 = section[3:]
    discriminant = a1 * a1 - 4 * a2
    return math.sqrt(a2) if discriminant < 0 else (abs(a1) + math.sqrt(discriminant)) / 2


def settling_samples(sections: Sequence[Section]) -> int:
    """Samples after which the slowest pole of every section has let a step decay by 60 dB, one after the other.

    Raises:
        ValueError: a section is not stable.
    """
    radii = [pole_radius(section) for section in sections]
    if any(radius >= 1 for radius in radii):
        raise ValueError("a section has a pole on or outside the unit circle")
    return sum(math.ceil(math.log(_SETTLED) / math.log(radius)) for radius in radii if radius > 0)


def gain(sections: Sequence[Section], angle: float) -> float:
    """Magnitude of the response at `angle` (radians per sample)."""
    z = cmath.exp(-1j * angle)
    response = complex(1)
    for b0, b1, b2, a1, a2 in sections:
        response *= (b0 + b1 * z + b2 * z * z) / (1 + a1 * z + a2 * z * z)
    return abs(response)


def group_delay(sections: Sequence[Section], angle: float) -> float:
    """Samples by which an envelope round `angle` (radians per sample) is late."""
    step = 1e-4
    return (_phase(sections, angle - step) - _phase(sections, angle + step)) / (2 * step)


def _phase(sections: Sequence[Section], angle: float) -> float:
    z = cmath.exp(-1j * angle)
    return sum(
        cmath.phase(b0 + b1 * z + b2 * z * z) - cmath.phase(1 + a1 * z + a2 * z * z) for b0, b1, b2, a1, a2 in sections
    )


def _band(half: complex, centre_squared: float) -> tuple[complex, complex]:
    root = cmath.sqrt(half * half - centre_squared)
    return half + root, half - root


def _sections(poles: list[complex], zeros: Sequence[float], middle: float) -> tuple[Section, ...]:
    """Pair conjugate poles, then real ones; give each section two of the zeros and gain 1 at `middle`."""
    upper = sorted((p for p in poles if p.imag > 1e-12), key=lambda p: (abs(p), p.real))
    real = sorted(p.real for p in poles if abs(p.imag) <= 1e-12)
    pairs = [(-2 * p.real, abs(p) ** 2) for p in upper]
    twos = [real[at : at + 2] for at in range(0, len(real), 2)]
    pairs += [(-sum(two), math.prod(two) if len(two) > 1 else 0.0) for two in twos]
    sections: list[Section] = []
    for number, (a1, a2) in enumerate(pairs):
        own = zeros[2 * number : 2 * number + 2]
        b1, b2 = (0.0 - sum(own), math.prod(own)) if len(own) > 1 else (-own[0], 0.0)
        scale = gain([(1.0, b1, b2, a1, a2)], middle)
        sections.append((1 / scale, b1 / scale, b2 / scale, a1, a2))
    return tuple(sections)
