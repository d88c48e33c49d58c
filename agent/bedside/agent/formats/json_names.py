"""Names that a JSON object has twice: of two values of one name nobody can say which is meant, and parsers differ.

Source: RFC 8259, section 4; RFC 7493 (I-JSON), section 2.3.
"""

from __future__ import annotations

import re
from typing import Final

TEXTS: Final = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|$)', re.DOTALL)
"""Strings; an unterminated one reaches to the end, so that no byte is looked at twice."""


def has_repeated_names(data: bytes, value: object) -> bool:
    """Whether an object in a document, at any depth, has two members of one name.

    Args:
        data: the document; it is valid JSON.
        value: what it was decoded to, in which the last member of a name has taken the place of the others.
    """
    members = 0
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            members += len(one)
            left += one.values()
        elif isinstance(one, list):
            left += one
    return members != TEXTS.sub(b"", data).count(b":")  # outside of strings a colon stands in members alone
