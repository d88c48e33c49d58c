"""The state tables in the protocol's document are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from bedside.core.securesum.aggregator import COHORT
from bedside.core.securesum.device import CONTRIBUTION
from bedside.core.securesum.machine import Machine
from bedside.core.securesum.trustee import TRUSTEE

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol" / "secure-sum.md"


def render(machine: Machine) -> str:
    rows = [
        f"| {state.value} | {event.value} | {after.value} |" for (state, event), after in machine.transitions.items()
    ]
    return "\n".join(["| state | input | next |", "|---|---|---|", *rows])


@pytest.mark.parametrize("machine", [CONTRIBUTION, TRUSTEE, COHORT], ids=lambda machine: machine.name)
def test_the_document_shows_the_codes_own_table(machine):
    assert render(machine) in DOCUMENT.read_text(), f"put this into {DOCUMENT.name}:\n{render(machine)}"
