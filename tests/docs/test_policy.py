"""Every rule of a policy is documented where people look for it, with its default, and every refusal with its code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bedside.core.policy import SitePolicy
from bedside.core.policy.judge import RULES
from bedside.core.policy.templates import TEMPLATES
from bedside.core.policy.words import FIELD_WORDS
from bedside.trustee.site.founding import POLICY_TEMPLATE

DOCUMENT = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol" / "secure-sum.md").read_text()
CODES = sorted({rule.code for rule in RULES})
WITH_MEMORY = (
    "too-many-rounds",
    "too-many-of-purpose",
    "too-many-evaluations",
    "min-trusted",
    "one-site-dominates",
    "set-differs-too-little",
    "result-fork",
    "coordinator-signs-models",
    "purpose-not-known",
)


@pytest.mark.parametrize("name", SitePolicy.__struct_fields__)
def test_every_rule_stands_in_the_page_the_template_and_the_explanation(name):
    assert f"| `{name}` |" in DOCUMENT
    assert re.search(rf"^\[?{name}\b", POLICY_TEMPLATE, re.MULTILINE)
    assert len(FIELD_WORDS[name]) > 20


@pytest.mark.parametrize("code", [*CODES, *WITH_MEMORY])
def test_every_refusal_stands_in_the_page_and_in_the_protocol(code):
    assert f"| `{code}` |" in DOCUMENT
    assert f"`{code}`" in PROTOCOL


def test_every_template_of_a_statistic_stands_in_the_page_and_the_template_of_a_policy():
    for template in TEMPLATES.values():
        assert f"| `{template.name}` | {template.words} |" in DOCUMENT
        assert f'"{template.name}"' in POLICY_TEMPLATE


def test_the_reason_of_each_rule_stands_beside_it_in_the_template():
    lines = POLICY_TEMPLATE.splitlines()
    for name in SitePolicy.__struct_fields__:
        at = next(number for number, line in enumerate(lines) if re.match(rf"\[?{name}\b", line))
        assert "#" in lines[at] or lines[at - 1].startswith("#"), name
