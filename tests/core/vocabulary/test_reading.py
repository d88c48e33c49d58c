"""What names a kind of reading: codes as they were sent, and nothing that could be a person's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.vocabulary.reading import MAX_WHAT_CHARS, Reading, as_code, as_what


@pytest.mark.parametrize(
    ("reading", "what"),
    [
        (Reading("147842", 72.0, "MDC", "264864"), "147842^MDC [264864]"),
        (Reading("MDC_PRESS_BLD_NONINV_SYS", 1.0, "MDC", "mm[Hg]"), "MDC_PRESS_BLD_NONINV_SYS^MDC [mm[Hg]]"),
        (Reading("8867-4", 1.0, "LN", "{beats}/min"), "8867-4^LN [{beats}/min]"),
        (Reading("Temp", 1.0, unit="°C"), "Temp [°C]"),
        (Reading("WBC", 1.0, unit="10^3/uL"), "WBC [10^3/uL]"),
        (Reading("hr", 1.0), "hr"),
        (Reading("", 1.0, unit="mV"), "(no code) [mV]"),
        (Reading("MUELLER^ANNA", 1.0), "(text of 12 characters)"),
        (Reading("Anna Müller", 1.0, "sent by Dr. Weiß", "born 1970"), None),
        (Reading("hr\n", 1.0), "(text of 3 characters)"),
        (Reading("x" * 57, 1.0), "(text of 57 characters)"),
        (Reading("x" * 56, 1.0, "y" * 32, "z" * 32), f"{'x' * 56}^{'y' * 32} [(text of 32 characters)]"),
        (Reading("Mustermann", 1.0, unit="MRN12345"), "(text of 10 characters) [(text of 8 characters)]"),
        (Reading("Anna-Maria", 1.0, unit="{Mustermann}/min"), "(text of 10 characters) [(text of 16 characters)]"),
        (Reading("hr_bpm", 1.0, unit="4711"), "hr_bpm [(text of 4 characters)]"),
        (Reading("SpO2", 1.0, unit="265999"), "SpO2 [265999]"),
        (Reading("K", 1.0, unit="mEq/L"), "K [mEq/L]"),
        (Reading("MDC_X", 1.0, unit="beats/min"), "MDC_X [beats/min]"),
    ],
)
def test_a_kind_is_named_by_codes_and_what_is_none_by_its_length(reading, what) -> None:
    assert reading.what == (what or "(text of 11 characters)^(text of 16 characters) [(text of 9 characters)]")
    assert as_what(reading.what) == reading.what


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=200))
def test_every_name_is_short_and_taken_as_it_is(code, system, unit) -> None:
    what = Reading(code, None, system, unit).what
    assert len(what) <= MAX_WHAT_CHARS
    assert as_what(what) == what
    assert what.isprintable()


@pytest.mark.parametrize(
    "words",
    [
        "Anna Mueller",
        "PID|1||4711^^^HIS",
        "hr = 72",
        "hr [mV] x",
        "72 [Anna Maria]",
        "72 [Anna^M]",
        "Mustermann",
        "hr [Anna]",
        "Anna^LN",
        "",
    ],
)
def test_words_of_others_are_kept_as_their_length(words) -> None:
    assert as_what(words) in (f"(text of {len(words)} characters)", "(no code)")
    assert as_code(words).startswith("(")


def test_a_type_of_a_resource_is_shown() -> None:
    assert as_what("Patient^FHIR") == "Patient^FHIR"
