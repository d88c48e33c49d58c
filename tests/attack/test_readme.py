"""README.md is the reviewer's map; it shows what is there."""

from __future__ import annotations

import re
from pathlib import Path

from readme_table import CASES, row

README = Path(__file__).with_name("README.md")
REPOSITORY = Path(__file__).parents[2]


def test_every_attack_has_its_row_and_every_row_its_attack() -> None:
    told = README.read_text().partition("## The catalogue")[2].partition("## Tested where")[0]
    rows = [line for line in told.splitlines() if line.startswith("| ")][1:]
    assert sorted(rows) == sorted(row(case) for case in CASES)


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", README.read_text())
    assert len(named) > 10
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (REPOSITORY / path).read_text()]
    assert missing == []
