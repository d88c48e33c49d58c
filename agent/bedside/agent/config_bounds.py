"""Bounds of what `agent.toml` may ask for."""

from __future__ import annotations

from typing import Final

MAX_KEPT_DAYS: Final = 36_500
"""A hundred years: longer than any hospital must keep a record, and short enough to count in nanoseconds."""
MAX_WAIT_S: Final = 31_536_000
"""A year, in seconds."""
MAX_MIB: Final = 1 << 30
"""A pebibyte."""
