"""Units: what they mean, and values in other ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.vocabulary.mdc import unit_term
from bedside.core.vocabulary.ucum import UNITS, Dimension, Unit, convert, convertible, ucum, word


@pytest.mark.parametrize(
    ("value", "sent", "wanted", "expected"),
    [
        (98.6, "[degF]", "Cel", 37.0),
        (37.0, "Cel", "[degF]", 98.6),
        (310.15, "K", "Cel", 37.0),
        (-40.0, "Cel", "[degF]", -40.0),
        (133.322, "kPa", "mm[Hg]", 1000.0),
        (120.0, "mm[Hg]", "kPa", 15.99864),
        (10.0, "cm[H2O]", "Pa", 980.665),
        (100.0, "[lb_av]", "kg", 45.359237),
        (72.0, "[in_i]", "cm", 182.88),
        (1.0, "Hz", "/min", 60.0),
        (250.0, "uV", "mV", 0.25),
        (97.0, "%", "1", 0.97),
    ],
)
def test_values_convert_exactly(value: float, sent: str, wanted: str, expected: float) -> None:
    assert convert(value, UNITS[sent], UNITS[wanted]) == expected


def test_mass_and_amount_convert_where_the_substance_is_known_alone() -> None:
    milligram, millimole = UNITS["mg/dL"], UNITS["mmol/L"]
    assert convert(5.5, millimole, milligram, "glucose") == 99.0858
    assert convert(99.0858, milligram, millimole, "glucose") == 5.5
    assert not convertible(milligram, millimole)
    assert not convertible(milligram, millimole, "lactate")
    with pytest.raises(ValueError, match="does not convert"):
        convert(5.5, millimole, milligram)


@given(st.floats(-1e6, 1e6), st.sampled_from(sorted(UNITS)), st.sampled_from(sorted(UNITS)))
def test_there_and_back_is_the_same_value(value: float, one: str, other: str) -> None:
    sent, wanted = UNITS[one], UNITS[other]
    if convertible(sent, wanted, "glucose"):
        there = convert(value, sent, wanted, "glucose")
        assert convert(there, wanted, sent, "glucose") == pytest.approx(value, rel=1e-9, abs=1e-6)


def test_what_is_not_finite_stays_and_what_is_too_large_is_infinite() -> None:
    assert math.isnan(convert(math.nan, UNITS["[degF]"], UNITS["Cel"]))
    assert convert(math.inf, UNITS["kPa"], UNITS["Pa"]) == math.inf
    assert convert(-1e308, UNITS["kPa"], UNITS["Pa"]) == -math.inf


@pytest.mark.parametrize(
    ("text", "code"),
    [("{beat}/min", "/min"), ("1/min", "/min"), ("mm[Hg]", "mm[Hg]"), ("{score}", "1"), ("%{vol}", "%")],
)
def test_annotations_of_ucum_do_not_count(text: str, code: str) -> None:
    assert ucum(text) is UNITS[code]


@pytest.mark.parametrize("text", ["", "MM[HG]", "C", "F", "mm Hg", "{", "{}{", "1/", "kpa", "{" + "x" * 64 + "}/min"])
def test_what_is_no_ucum_code_is_none(text: str) -> None:
    assert ucum(text) is None


@pytest.mark.parametrize(
    ("text", "dimension", "code"),
    [
        ("bpm", Dimension.FREQUENCY, "/min"),
        ("BPM", Dimension.FREQUENCY, "/min"),
        ("rpm", Dimension.FREQUENCY, "/min"),
        ("mmHg", Dimension.PRESSURE, "mm[Hg]"),
        ("C", Dimension.TEMPERATURE, "Cel"),
        ("degC", Dimension.TEMPERATURE, "Cel"),
        ("\N{DEGREE SIGN}F", Dimension.TEMPERATURE, "[degF]"),
        ("F", Dimension.TEMPERATURE, "[degF]"),
        ("lbs", Dimension.MASS, "[lb_av]"),
        ("mg/dl", Dimension.SUBSTANCE_CONCENTRATION, "mg/dL"),
    ],
)
def test_words_of_devices_mean_a_unit_of_the_quantity(text: str, dimension: Dimension, code: str) -> None:
    assert word(text, dimension) is UNITS[code]


@pytest.mark.parametrize(
    ("text", "dimension"),
    [("C", Dimension.PRESSURE), ("F", Dimension.NUMBER), ("bpm", Dimension.PRESSURE), ("mm", Dimension.VOLTAGE)],
)
def test_a_word_of_another_quantity_means_nothing(text: str, dimension: Dimension) -> None:
    assert word(text, dimension) is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("266016", "mm[Hg]"),
        ("3872", "mm[Hg]"),
        ("MDC_DIM_MMHG", "mm[Hg]"),
        ("264864", "/min"),
        ("262688", "%"),
        ("268192", "Cel"),
        ("266560", "[degF]"),
        ("MDC_DIM_FAHR", "[degF]"),
        ("MDC_DIM_X_G_PER_DL", "g/dL"),
        ("MDC_DIM_KILO_G", "kg"),
        ("266418", "mV"),
        ("266048", "cm[H2O]"),
    ],
)
def test_units_of_the_nomenclature(text: str, code: str) -> None:
    assert unit_term(text) is UNITS[code]


@pytest.mark.parametrize("text", ["", "1", "150456", "MDC_DIM", "\N{SUPERSCRIPT TWO}6", "9" * 30])
def test_other_numbers_are_no_units_of_the_nomenclature(text: str) -> None:
    assert unit_term(text) is None


def test_a_unit_outside_the_table_converts_to_itself_alone() -> None:
    drug = Unit("ug/kg/min", Dimension.OTHER)
    assert convertible(drug, Unit("ug/kg/min", Dimension.OTHER))
    assert not convertible(drug, Unit("mg/kg/h", Dimension.OTHER))
    assert not convertible(drug, UNITS["1"])
