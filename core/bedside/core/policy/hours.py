"""Local hours in which a site takes part, such as `20:00-06:00`; the time of day is always passed in."""

from __future__ import annotations

import re
from typing import Final

DAY_MINUTES: Final = 24 * 60

_HOURS: Final = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)", re.ASCII)


def parse_hours(text: str) -> tuple[int, int]:
    """Start and end in minutes after midnight; (0, 1440) for an empty text, which means always.

    Raises:
        ValueError: it is not `HH:MM-HH:MM`, or both times are the same.
    """
    if not text:
        return 0, DAY_MINUTES
    match = _HOURS.fullmatch(text)
    if match is None:
        raise ValueError(f"hours are HH:MM-HH:MM, such as 20:00-06:00, not {text[:32]!r}")
    hours = (int(match[1]), int(match[3]))
    minutes = (int(match[2]), int(match[4]))
    if max(hours) > 23 or max(minutes) > 59:
        raise ValueError(f"hours go from 00:00 to 23:59, not {text[:32]!r}")
    start, end = (60 * hour + minute for hour, minute in zip(hours, minutes, strict=True))
    if start == end:
        raise ValueError("hours begin and end at the same minute: leave the rule empty to take part always")
    return start, end


def within_hours(text: str, minute: int) -> bool:
    """Whether a minute after midnight (0 to 1439) is within the hours; the end does not belong to them."""
    start, end = parse_hours(text)
    return start <= minute < end if start < end else minute >= start or minute < end
