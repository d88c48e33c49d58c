"""UCUM units that wards send, their dimensions, and exact conversion between them.

A unit is a number of base units and, for temperatures, where its zero lies:  base = (value + zero) * size.
Conversion is done in fractions, from the shortest decimal that the value reads back from, and rounded once.

Source: The Unified Code for Units of Measure, tables of units (`m[Hg]` = 133.322 kPa, `m[H2O]` = 9.80665 kPa,
`[lb_av]` = 7000 gr, `[in_i]` = 2.54 cm, `[degF]` = 5/9 K).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum, auto
from fractions import Fraction
from typing import Final

from bedside.core.limits import MAX_SIGNAL_TEXT_CHARS


class Dimension(Enum):
    """What a unit measures. Frequencies of different events are one dimension, as in UCUM."""

    NUMBER = auto()
    FREQUENCY = auto()
    PRESSURE = auto()
    TEMPERATURE = auto()
    MASS = auto()
    LENGTH = auto()
    VOLUME = auto()
    FLOW = auto()
    FLOW_INDEX = auto()
    BODY_MASS_INDEX = auto()
    MASS_CONCENTRATION = auto()
    SUBSTANCE_CONCENTRATION = auto()
    VOLTAGE = auto()
    TIME = auto()
    ACIDITY = auto()
    RESISTANCE = auto()
    ACCELERATION = auto()
    ANGLE = auto()
    ANGULAR_VELOCITY = auto()
    OTHER = auto()
    """Of a unit that is not in this table: it converts to itself alone."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One UCUM unit.

    Attributes:
        code: as UCUM writes it, without annotations.
        dimension: of what it measures.
        size: base units in one of it.
        zero: what to add to a value before it is scaled.
    """

    code: str
    dimension: Dimension
    size: Fraction = Fraction(1)
    zero: Fraction = Fraction(0)


_SIZES: Final[dict[Dimension, str]] = {
    Dimension.NUMBER: "1 1, % 1/100, [ppth] 1/1000, [ppm] 1/1000000",
    Dimension.FREQUENCY: "/min 1, /s 60, Hz 60, /h 1/60, /d 1/1440",
    Dimension.PRESSURE: "Pa 1, hPa 100, kPa 1000, mbar 100, bar 100000, mm[Hg] 133.322, cm[H2O] 98.0665",
    Dimension.MASS: "g 1, kg 1000, mg 1/1000, ug 1/1000000, [lb_av] 453.59237, [oz_av] 28.349523125",
    Dimension.LENGTH: "m 1, cm 1/100, mm 1/1000, [in_i] 0.0254, [ft_i] 0.3048",
    Dimension.VOLUME: "L 1, dL 1/10, cL 1/100, mL 1/1000, l 1, ml 1/1000",
    Dimension.FLOW: "L/min 1, mL/min 1/1000, L/h 1/60, mL/h 1/60000, L/s 60, mL/s 60/1000",
    Dimension.FLOW_INDEX: "L/min/m2 1, L/(min.m2) 1",
    Dimension.BODY_MASS_INDEX: "kg/m2 1",
    Dimension.MASS_CONCENTRATION: "g/L 1, g/dL 10, mg/dL 1/100, mg/L 1/1000, ug/dL 1/100000, ug/L 1/1000000",
    Dimension.SUBSTANCE_CONCENTRATION: "mmol/L 1, mol/L 1000, umol/L 1/1000, nmol/L 1/1000000",
    Dimension.VOLTAGE: "V 1, mV 1/1000, uV 1/1000000",
    Dimension.TIME: "s 1, ms 1/1000, us 1/1000000, min 60, h 3600, d 86400",
    Dimension.ACIDITY: "[pH] 1",
    Dimension.RESISTANCE: "Ohm 1, kOhm 1000, MOhm 1000000",
    Dimension.ACCELERATION: "m/s2 1, [g] 9.80665",
    Dimension.ANGLE: "deg 1",
    Dimension.ANGULAR_VELOCITY: "deg/s 1",
}

_ZERO_C: Final = Fraction("273.15")
_ZERO_F: Final = Fraction("459.67")


def _size(text: str) -> Fraction:
    numerator, _, denominator = text.partition("/")
    return Fraction(numerator) / Fraction(denominator or "1")


UNITS: Final[dict[str, Unit]] = {
    code: Unit(code, dimension, _size(size))
    for dimension, listed in _SIZES.items()
    for code, size in (entry.split(" ") for entry in listed.split(", "))
} | {
    "K": Unit("K", Dimension.TEMPERATURE),
    "Cel": Unit("Cel", Dimension.TEMPERATURE, Fraction(1), _ZERO_C),
    "[degF]": Unit("[degF]", Dimension.TEMPERATURE, Fraction(5, 9), _ZERO_F),
}
"""By UCUM code."""

_WORDS_OF: Final[dict[Dimension, dict[str, str]]] = {
    Dimension.NUMBER: {"%": "percent|pct"},
    Dimension.FREQUENCY: {
        "/min": "bpm|rpm|beat/min|beats/min|b/min|breath/min|breaths/min|br/min|resp/min|pulse/min|pulses/min|min-1"
        "|per min|per minute|/minute"
    },
    Dimension.PRESSURE: {
        "mm[Hg]": "mmhg|mm hg|mm(hg)|mm[hg]",
        "cm[H2O]": "cmh2o|cm h2o|cm[h2o]",
        "kPa": "kpa",
        "hPa": "hpa",
    },
    Dimension.TEMPERATURE: {
        "Cel": "c|cel|degc|deg c|\N{DEGREE SIGN}c|\N{DEGREE SIGN} c|\N{DEGREE CELSIUS}|celsius",
        "[degF]": "f|degf|deg f|[degf]|\N{DEGREE SIGN}f|\N{DEGREE SIGN} f|\N{DEGREE FAHRENHEIT}|fahrenheit",
    },
    Dimension.MASS: {"kg": "kg|kgs", "[lb_av]": "lb|lbs|pound|pounds|[lb_av]"},
    Dimension.LENGTH: {"cm": "cm", "[in_i]": "in|inch|inches|[in_i]", "[ft_i]": "ft"},
    Dimension.MASS_CONCENTRATION: {"mg/dL": "mg/dl", "g/dL": "g/dl"},
    Dimension.SUBSTANCE_CONCENTRATION: {"mmol/L": "mmol/l", "umol/L": "umol/l"},
    Dimension.FLOW: {"L/min": "l/min|lpm", "mL/min": "ml/min", "mL/h": "ml/h|ml/hr"},
    Dimension.FLOW_INDEX: {"L/min/m2": "l/min/m2|l/min/m^2"},
    Dimension.BODY_MASS_INDEX: {"kg/m2": "kg/m^2|kg/m\N{SUPERSCRIPT TWO}"},
    Dimension.ACIDITY: {"[pH]": "ph"},
    Dimension.TIME: {"s": "sec|secs", "ms": "msec|msecs"},
    Dimension.VOLTAGE: {"uV": "\N{MICRO SIGN}v|\N{GREEK SMALL LETTER MU}v"},
}
_WORDS: Final = {
    (dimension, word.casefold()): UNITS[code]
    for dimension, words_of in _WORDS_OF.items()
    for code, words in words_of.items()
    for word in words.split("|")
}
_ALL_WORDS: Final = frozenset(word for _, word in _WORDS)
"""Words of devices in small letters, for one dimension each: `C` is coulomb elsewhere, and `F` farad. No word stands
here that means two units of its dimension (`g%`, `mm` of ST)."""

_MEANINGS: Final = {text: frozenset(unit for (_, other), unit in _WORDS.items() if other == text) for _, text in _WORDS}
"""What a word can mean, whatever the quantity."""

_CROSSED: Final = {
    Dimension.MASS_CONCENTRATION: Dimension.SUBSTANCE_CONCENTRATION,
    Dimension.SUBSTANCE_CONCENTRATION: Dimension.MASS_CONCENTRATION,
}
"""One quantity is sent in either."""

_ANNOTATION: Final = re.compile(r"\{[^{}]*\}")

_COUNTED: Final = re.compile(r"\{(?:beat|breath|pulse|resp|count|cell|score|ratio)s?\}")
"""Annotations that name what is counted; others may say anything."""
_ATOM: Final = (
    r"(?:(?:da|[YZEPTGMkhdcmunpfa\u00b5\u03bc])?"
    r"(?:mol|[Oo]sm|[eE]q|kat|[Oo]hm|bar|cal|Cel|Bq|Gy|Hz|IU|\[[iI]U\]|Pa|rad|m\[(?:Hg|H2O)\]|[mgslLtVAWJNKFCUSTH])"
    r"|10[*^][0-9]{1,2}|%|min|h|d|wk|mo|a|deg|1)(?:\^?[+-]?[0-9])?"
)
_UNIT_FORM: Final = re.compile(rf"/?{_ATOM}(?:[./]{_ATOM}){{0,4}}|/?")
"""A term of UCUM: atoms with prefixes and exponents, between points and solidi."""

_MOLAR_MASS_G: Final[dict[str, Fraction]] = {"glucose": Fraction("180.156")}
"""Grams in one mole, of substances for which wards use both kinds of unit."""


def ucum(text: str) -> Unit | None:
    """The unit of a UCUM code; annotations such as `{beat}` do not count.

    Args:
        text: as sent.

    Returns:
        None for what is no UCUM code that wards send.
    """
    if len(text) > MAX_SIGNAL_TEXT_CHARS:
        return None
    if found := UNITS.get(text):
        return found
    bare = _ANNOTATION.sub("", text)
    if bare == text and not text.startswith("1/"):
        return None
    return UNITS.get(bare.removeprefix("1") if bare.startswith("1/") else bare or "1")


def is_unit(text: str) -> bool:
    """Whether a text is a unit, also one that no quantity here is measured in: no word, and no number of a person."""
    if len(text) > MAX_SIGNAL_TEXT_CHARS:
        return False
    bare = _COUNTED.sub("", text)
    return text.strip().casefold() in _ALL_WORDS or bare in UNITS or _UNIT_FORM.fullmatch(bare) is not None


def word(text: str, dimension: Dimension) -> Unit | None:
    """The unit that a device means by a word, where the quantity leaves no doubt.

    Args:
        text: as sent.
        dimension: of the quantity that it comes with.
    """
    if len(text) > MAX_SIGNAL_TEXT_CHARS:
        return None
    if found := _WORDS.get((dimension, text.strip().casefold())):
        return found
    crossed = _CROSSED.get(dimension)
    return _WORDS.get((crossed, text.strip().casefold())) if crossed else None


def meanings(text: str) -> frozenset[Unit]:
    """All units that a text may stand for, as UCUM or as a device's word for some quantity."""
    if len(text) > MAX_SIGNAL_TEXT_CHARS:
        return frozenset()
    text = text.strip()
    known = ucum(text)
    return _MEANINGS.get(text.casefold(), frozenset()) | (frozenset() if known is None else {known})


def convertible(sent: Unit, wanted: Unit, substance: str = "") -> bool:
    """Whether values convert: of one dimension, or mass and amount of a substance that is known."""
    if Dimension.OTHER in {sent.dimension, wanted.dimension}:
        return sent == wanted
    return sent.dimension is wanted.dimension or _grams_per_mole(sent, wanted, substance) is not None


def convert(value: float, sent: Unit, wanted: Unit, substance: str = "") -> float:
    """A value in another unit: exact for the decimal number that was sent, rounded once.

    Args:
        value: in `sent`; one that is not finite stays what it is.
        sent: its unit.
        wanted: unit of the result.
        substance: whose molar mass leads from mass to amount.

    Returns:
        The value in `wanted`; infinite where no float holds it.

    Raises:
        ValueError: for units that do not convert; ask `convertible` first.
    """
    if sent == wanted or not math.isfinite(value):
        return value
    base = (Fraction(repr(float(value))) + sent.zero) * sent.size
    if sent.dimension is not wanted.dimension:
        grams = _grams_per_mole(sent, wanted, substance)
        if grams is None:
            raise ValueError(f"{sent.code} does not convert to {wanted.code}")
        per_gram_litre = 1000 / grams  # mmol/L in one g/L
        base = base * per_gram_litre if sent.dimension is Dimension.MASS_CONCENTRATION else base / per_gram_litre
    try:
        return float(base / wanted.size - wanted.zero)
    except OverflowError:
        return math.inf if base > 0 else -math.inf


def _grams_per_mole(sent: Unit, wanted: Unit, substance: str) -> Fraction | None:
    kinds = {sent.dimension, wanted.dimension}
    both = kinds == {Dimension.MASS_CONCENTRATION, Dimension.SUBSTANCE_CONCENTRATION}
    return _MOLAR_MASS_G.get(substance) if both else None
