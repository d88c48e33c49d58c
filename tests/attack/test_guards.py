"""Each guard switched off: the attack that it stops then succeeds, so that its test would turn red."""

from __future__ import annotations

import pytest
import test_attacks  # noqa: F401  # fills the catalogue
from attack_cases import CASES
from attack_field import code_of
from guard_switch import switch_off

GUARDED = [case for case in CASES if case.guards]
RELEASING = {
    "one_header_twice",
    "fakes_of_a_bad_site_around_one_victim",
    "two_sets_to_two_trustees",
    "the_same_inputs_again_without_one_device",
    "a_restored_disk_without_its_ram_signs_burned",
    "a_plan_with_a_model_that_the_coordinator_signed",
    "a_plan_swapped_between_devices",
}
"""Of these it is seen that what comes out is what `test_attacks.py` looks for."""
LAYERED = [case for case in GUARDED if len(case.guards) > 1]


@pytest.mark.parametrize("case", GUARDED, ids=lambda case: case.name)
def test_without_its_guards_the_attack_succeeds(field, monkeypatch, case) -> None:
    attempt = case.prepare(field)
    before = field.released()
    switch_off(case.guards, monkeypatch.setattr)
    assert code_of(attempt) == ""
    if case.name in RELEASING:
        assert field.released() != before


@pytest.mark.parametrize("case", LAYERED, ids=lambda case: case.name)
def test_behind_the_first_guard_stands_another(field, monkeypatch, case) -> None:
    attempt = case.prepare(field)
    switch_off(case.guards[:1], monkeypatch.setattr)
    assert code_of(attempt) != ""
