"""The audit's page lists the checks that the code makes, in their order."""

from __future__ import annotations

import re
from pathlib import Path

from bedside.core.audit.report import CHECKS

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()


def test_the_page_lists_every_check_with_the_words_of_the_code():
    listed = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert dict(listed) == CHECKS
    assert [code for code, _ in listed] == list(CHECKS)
