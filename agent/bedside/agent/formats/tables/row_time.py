"""The time of a row of a table: text, a number or a date, in a form that the configuration names.

A local time that a change of the clocks makes ambiguous or impossible is refused: an hour is not guessed. So is a form
that would lose a part of a time: a day without a time of day, an hour without minutes, twelve hours without AM or PM,
the name of a zone.

Source: ISO 8601; `datetime.fold` (PEP 495).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Final

from bedside.core.errors import ConfigError, MalformedError
from bedside.service.text import bounded

UNITS_NS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Numbers since 1970, by the name of their format."""
MAX_TIME_CHARS: Final = 64

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{0,12})?", re.ASCII)
_OF_DAY: Final = re.compile(r"[Tt ][0-9]{2}:?[0-9]{2}", re.ASCII)
"""The time of day in ISO 8601, from minutes on."""
_DIRECTIVE: Final = re.compile(r"%(.)", re.DOTALL)
_AFTERNOON: Final = datetime(2026, 11, 26, 13, 47, tzinfo=timezone(timedelta(hours=1)))
"""No two numbers of it are alike, so that a pattern that loses one gives another time."""
_FINER: Final = re.compile(r"(\.[0-9]{6})([0-9]{1,3})(?=[Z+-]|$)", re.ASCII)


class RowTime:
    """Reads times of one form."""

    def __init__(self, form: str, zone: str = "UTC", decimal: str = ".") -> None:
        """Prepare.

        Args:
            form: `iso`, one of `UNITS_NS`, `relative_s`, or a pattern of strptime with its `%`.
            zone: IANA name, for times without an offset.
            decimal: mark in numbers.

        Raises:
            ConfigError: `time-format`, `time-zone`.
        """
        if form not in {"iso", "relative_s", *UNITS_NS} and "%" not in form:
            raise ConfigError(
                "time-format",
                f"there is no format of time {bounded(form, 40)!r}",
                remedy="use iso, s, ms, us, ns, relative_s, or a pattern such as %d.%m.%Y %H:%M:%S",
            )
        if "%" in form and (fault := _fault_of(form)):
            raise ConfigError(
                "time-format",
                f"the format of time {bounded(form, 40)!r} {fault}",
                remedy="write date, hours and minutes, for instance %d.%m.%Y %H:%M:%S; for %I add %p, for %Z take %z,"
                " or name the zone with time_zone",
            )
        self._zone = zone_of(zone)
        self._form = form
        self._decimal = decimal
        self._unit_ns = UNITS_NS.get("s" if form == "relative_s" else form, 0)

    def ns(self, value: object) -> int:
        """Nanoseconds since 1970, or since zero for `relative_s`.

        Raises:
            MalformedError: `bad-time`: it is no time of this form, or before zero.
        """
        if isinstance(value, datetime):
            time_ns = self._of_date(value)
        elif isinstance(value, str) and not self._unit_ns:
            time_ns = self._of_text(value)
        elif isinstance(value, str | int | float | Decimal) and self._unit_ns:
            time_ns = self._of_number(value)
        else:
            raise _bad_time()
        if time_ns < 0:
            raise _bad_time()
        return time_ns

    def _of_number(self, value: str | float | Decimal) -> int:
        text = value if isinstance(value, str) else f"{value:.9f}" if isinstance(value, float) else str(value)
        if self._decimal == "," and isinstance(value, str):
            text = "" if "." in text else text.replace(",", ".", 1)
        if _NUMBER.fullmatch(text) is None:
            raise _bad_time()
        return int(Decimal(text) * self._unit_ns)

    def _of_text(self, text: str) -> int:
        if len(text) > MAX_TIME_CHARS:
            raise _bad_time()
        finer_ns = 0
        try:
            if self._form != "iso":
                return self._of_date(datetime.strptime(text, self._form))  # noqa: DTZ007 - `_of_date` gives it a zone
            if found := _FINER.search(text):
                finer_ns = int(found[2].ljust(3, "0"))
                text = text[: found.start(2)] + text[found.end(2) :]
            if _OF_DAY.search(text) is None:  # a day is no time, nor is an hour
                raise _bad_time()
            return self._of_date(datetime.fromisoformat(text)) + finer_ns
        except (ValueError, OverflowError, IndexError, re.error) as error:
            raise _bad_time() from error

    def _of_date(self, date: datetime) -> int:
        try:
            if date.tzinfo is None:
                date = self._placed(date)
            return (date - _EPOCH) // _MICROSECOND * 1000
        except (OverflowError, ValueError) as error:
            raise _bad_time() from error

    def _placed(self, local: datetime) -> datetime:
        """The moment that a wall clock of the zone showed this, if it is one."""
        early, late = (local.replace(tzinfo=self._zone, fold=fold) for fold in (0, 1))
        if early.utcoffset() != late.utcoffset():
            raise _bad_time()
        return early


def _fault_of(pattern: str) -> str:
    """What is wrong with a pattern of strptime; empty when it reads to the minute what it writes."""
    if "Z" in _DIRECTIVE.findall(pattern):
        return "reads the name of a zone, which does not count"
    try:
        read = datetime.strptime(_AFTERNOON.strftime(pattern), pattern)  # noqa: DTZ007 - the zone does not matter here
    except (ValueError, IndexError, re.error):
        return "is no pattern that strptime reads"
    is_whole = read.replace(tzinfo=None) == _AFTERNOON.replace(tzinfo=None)
    return "" if is_whole else "does not tell a time to the minute"


def zone_of(name: str) -> tzinfo:
    """A time zone.

    Raises:
        ConfigError: `time-zone`.
    """
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # half a megabyte that a device on UTC does not need

    try:
        return ZoneInfo(name)
    except (LookupError, OSError, ValueError) as error:  # one that is not installed, and a path that is none
        raise ConfigError(
            "time-zone",
            f"there is no time zone {bounded(name, 40)!r} on this machine",
            remedy="use an IANA name such as Europe/Berlin, and install tzdata",
        ) from error


def _bad_time() -> MalformedError:
    return MalformedError("bad-time", "it is not a time of the form that is configured")
