"""What msgspec raises on bytes that are not what they should be: three classes that have no root in common.

A key that is not UTF-8 is no `DecodeError`, and neither is nesting beyond Python's limit.
"""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
