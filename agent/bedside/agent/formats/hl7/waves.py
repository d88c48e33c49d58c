"""Waveforms in HL7 v2: numeric arrays with their attributes beside them, as IHE's Waveform Content Module has them.

Nothing of a waveform is guessed: without a rate in a unit that is known, with two of them, with a value that is no
number, or where it or what says its rate or scale is not as measured (OBX-8, OBX-11), it is left out. Attributes belong
to the array whose OBX-4 theirs begins with, or to the only one of their order.

Source: IHE Devices, Waveform Content Module (supplement to PCD Technical Framework volume 3); HL7 v2.6 chapter 2A.42
(NA); ISO/IEEE 11073-10101 for the names of attributes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bedside.agent.formats.hl7.observations import ARRAYS, Code, Observation
from bedside.core.limits import MAX_RATE_HZ
from bedside.core.samples import Samples
from bedside.core.vocabulary.number import number_of

_RATE, _PERIOD, _RESOLUTION = "MDC_ATTR_SAMP_RATE", "MDC_ATTR_TIME_PD_SAMP", "MDC_ATTR_NU_MSMT_RES"
_NAMED: Final = frozenset({_RATE, _PERIOD, _RESOLUTION})
_PER_SECOND: Final = frozenset({"Hz", "/s", "1/s", "s-1", "MDC_DIM_HZ", "MDC_DIM_PER_SEC"})
_MOST: Final = float(np.finfo(np.float32).max)
_SECONDS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6} | {
    "MDC_DIM_SEC": 1.0,
    "MDC_DIM_MILLI_SEC": 1e-3,
    "MDC_DIM_MICRO_SEC": 1e-6,
}


@dataclass(frozen=True, slots=True)
class Wave:
    """One array that says all that a signal needs, but for its place and its time.

    Attributes:
        observation: that carried it.
        rate_hz: samples per second.
        values: shape (samples, 1); int16, int32 or float32.
        scale: physical value = stored value times `scale`.
    """

    observation: Observation
    rate_hz: float
    values: Samples
    scale: float


def waves(observations: Sequence[Observation]) -> tuple[list[Wave], list[Observation], list[Observation]]:
    """Take the arrays out of the observations of one visit.

    Returns:
        The waveforms; the arrays that are none; and the observations that neither are arrays nor belong to one.
    """
    arrays = [one for one in observations if one.kind in ARRAYS]
    owners = _owners(observations, arrays) if arrays else {}
    found: list[Wave] = []
    broken: list[Observation] = []
    attributes: list[list[Observation]] = [[] for _ in arrays]
    for index, owner in owners.items():
        attributes[owner].append(observations[index])
    for array, its in zip(arrays, attributes, strict=True):
        wave = _wave(array, its)
        broken += [array] if wave is None else []
        found += [wave] if wave is not None else []
    rest = [one for index, one in enumerate(observations) if one.kind not in ARRAYS and index not in owners]
    return found, broken, rest


def _owners(observations: Sequence[Observation], arrays: Sequence[Observation]) -> dict[int, int]:
    """By the position of an attribute, the array that it belongs to."""
    owners: dict[int, int] = {}
    places: dict[tuple[int, str], int] = {}
    orders: dict[int, list[int]] = {}
    for number, array in enumerate(arrays):
        places.setdefault((array.order, array.channel), number)
        orders.setdefault(array.order, []).append(number)
    for index, one in enumerate(observations):
        if one.kind in ARRAYS or not _is_attribute(one):
            continue
        parts = one.channel.split(".")[:16]
        above = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
        named = [places[one.order, place] for place in above if place and (one.order, place) in places]
        alone = orders.get(one.order, []) if len(orders.get(one.order, [])) == 1 else []
        if owner := (named or alone)[:1]:
            owners[index] = owner[0]
    return owners


def _is_attribute(observation: Observation) -> bool:
    return any(name.startswith("MDC_ATTR_") for code in observation.codes for name in (code.code, code.text))


def _wave(array: Observation, attributes: Sequence[Observation]) -> Wave | None:
    said = [one for one in attributes if not _NAMED.isdisjoint(_words(one.codes))]
    if not all(one.is_measured for one in (array, *said)) or not _is_one(said):
        return None
    rate_hz, scale = _rate(said), 1.0
    resolution = _attribute(said, _RESOLUTION)
    if resolution is not None:
        if resolution.units != array.units and resolution.units[0].name:
            return None
        scale = _number(resolution) or math.nan
    values = _values(array)
    if values is None or not 0 < rate_hz <= MAX_RATE_HZ or not math.isfinite(scale):
        return None
    return Wave(array, rate_hz, values, scale)


def _rate(attributes: Sequence[Observation]) -> float:
    """Samples per second; NaN where it is not said in a known unit."""
    rate, period = _attribute(attributes, _RATE), _attribute(attributes, _PERIOD)
    if rate is not None:
        return _number(rate) if _PER_SECOND.intersection(_words(rate.units)) else math.nan
    if period is None:
        return math.nan
    seconds = [_SECONDS[word] for word in _words(period.units) if word in _SECONDS]
    length_s = _number(period) * seconds[0] if seconds else math.nan
    return 1 / length_s if length_s > 0 else math.nan


def _attribute(attributes: Sequence[Observation], name: str) -> Observation | None:
    return next((one for one in attributes if name in _words(one.codes)), None)


def _is_one(attributes: Sequence[Observation]) -> bool:
    """Whether nothing is said twice, in two ways."""
    said = {name: {_number(one) for one in attributes if name in _words(one.codes)} for name in _NAMED}
    return all(len(values) <= 1 for values in said.values())


def _words(codes: Sequence[Code]) -> list[str]:
    return [word for code in codes for word in (code.code, code.text)]


def _number(observation: Observation) -> float:
    """The only value of an observation; NaN where it has none."""
    number = number_of(observation.values[0]) if len(observation.values) == 1 else None
    return math.nan if number is None else number


def _values(array: Observation) -> Samples | None:
    """The numbers of an array of one row; None where one of them is none."""
    if array.kind != "NA" or len(array.values) != 1 or "_" in array.values[0]:
        return None
    try:
        numbers = np.array([float(part) for part in array.segment.numbers_of(array.values[0])])
    except ValueError:
        return None
    least, most = float(numbers.min()), float(numbers.max())
    if not abs(least) <= _MOST or not abs(most) <= _MOST:  # NaN neither
        return None
    if (numbers == np.trunc(numbers)).all():
        if least >= -(1 << 15) and most < 1 << 15:
            return numbers.astype(np.int16).reshape(-1, 1)
        if least >= -(1 << 31) and most < 1 << 31:
            return numbers.astype(np.int32).reshape(-1, 1)
    return numbers.astype(np.float32).reshape(-1, 1)
