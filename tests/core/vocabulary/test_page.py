"""docs/vocabulary.md lists the fields as they are."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from bedside.core.vocabulary.mdc import LOINC, TERMS
from bedside.core.vocabulary.normaliser import FieldRule, Normaliser
from bedside.core.vocabulary.quantities import QUANTITIES, Quantity

PAGE = Path(__file__).parents[3] / "docs" / "vocabulary.md"


def row(quantity: Quantity) -> str:
    codes = ", ".join(
        f"{code} `{term.reference}`" for code, term in sorted(TERMS.items()) if quantity in term.quantities
    )
    loinc = ", ".join(code for code, term in LOINC.items() if quantity in term.quantities)
    unit = "" if quantity.unit == "1" else f"`{quantity.unit}`"
    return f"| `{quantity.field}` | {unit} | {quantity.low:g} to {quantity.high:g} | {codes} | {loinc} |"


def test_the_page_lists_every_field_with_its_unit_bounds_and_codes() -> None:
    expected = [row(quantity) for quantity in QUANTITIES.values()]
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("| `")] == expected, "\n".join(expected)


def test_the_rules_on_the_page_can_be_used() -> None:
    example = PAGE.read_text().split("```toml\n", 1)[1].split("```", 1)[0]
    fields = msgspec.convert(tomllib.loads(example)["sources"]["options"]["fields"], dict[str, FieldRule])
    assert len(fields) == 4
    Normaliser("page", fields)
