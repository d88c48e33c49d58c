"""Each attack of the catalogue is refused with its stable code, and nothing comes out."""

from __future__ import annotations

import disks_cases
import plans_cases
import pytest
import rounds_cases
import sets_cases
import vectors_cases
from attack_cases import CASES
from attack_field import SITES, code_of

from bedside.core.policy.judge import RULES

CATALOGUE = (disks_cases, plans_cases, rounds_cases, sets_cases, vectors_cases)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused_and_nothing_is_released(field, case) -> None:
    attempt = case.prepare(field)
    before = field.released()
    assert code_of(attempt) == case.code
    after = field.released()
    assert after["offers"] == before["offers"]
    said = {word for site in SITES for word in _words(after, site) - _words(before, site)}
    allowed = _MAY_FOLLOW.get(case.name, set())
    assert {kind for kind, _ in said} <= allowed
    if "answer" not in allowed:
        assert not {name for site in SITES for name in _sums(after, site) - _sums(before, site)}


def _sums(released, site):
    return set(released[site][1]) if site in released else set()


def _words(released, site):
    return set(released[site][0]) if site in released else set()


_MAY_FOLLOW = {
    # The attempt itself holds the honest answer that comes before the disk is copied back.
    "a_restored_disk_answers_again": {"answer", "closed"},
    # `closed: lost` is the refusal.
    "a_restored_disk_votes_for_a_second_set": {"closed"},
    "a_restored_disk_without_its_ram_signs_burned": {"closed"},
    "burned_is_asked_for_after_a_reboot": {"closed"},
}


def test_names_are_unique_and_every_rule_of_judge_plan_has_a_malicious_plan() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 60
    codes = {case.code for case in CASES if case.rule == "T7"}
    assert {rule.code for rule in RULES} - {"outside-hours"} <= codes
