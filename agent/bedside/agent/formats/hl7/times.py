"""Times of HL7 v2: DTM, `YYYYMMDDHHMM[SS[.S[S[S[S]]]]][+/-ZZZZ]`.

A day alone is no time of a measurement. A local hour that the clocks go through twice is none either, where nobody says
near what it lies: an hour is not guessed.

Source: HL7 v2.6 chapter 2A.22; `datetime.fold` (PEP 495).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

from bedside.core.errors import MalformedError

NEAR_NS: Final = 1_800_000_000_000
"""Half an hour: half of what clocks are put back by."""

_DTM: Final = re.compile(
    r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(?:(\d\d)(?:\.(\d{1,9}))?)?(?:([+-])(\d\d)([0-5]\d))?", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)


def time_ns(text: str, zone: tzinfo, near_ns: int | None = None) -> int:
    """A DTM as nanoseconds since 1970.

    Args:
        text: as it was sent.
        zone: of times that carry no offset.
        near_ns: what a local hour that comes twice, or never, must lie near to be taken; None refuses it.

    Raises:
        MalformedError: `bad-time`.
    """
    found = _DTM.fullmatch(text.strip())
    if found is None:
        raise _bad_time()
    try:
        local = datetime(*(int(found[part] or 0) for part in range(1, 7)))  # type: ignore[arg-type]  # noqa: DTZ001
        fraction_ns = int((found[7] or "").ljust(9, "0"))
        if found[8]:
            offset = timedelta(hours=int(found[9]), minutes=int(found[10]))
            moments = [_since_epoch(local.replace(tzinfo=timezone(-offset if found[8] == "-" else offset)))]
        else:
            moments = [_since_epoch(local.replace(tzinfo=zone, fold=fold)) for fold in (0, 1)]
    except (ValueError, OverflowError) as error:
        raise _bad_time() from error
    moment = moments[0]
    if len(set(moments)) > 1:
        moment = min(moments, key=lambda one: abs(one - near_ns)) if near_ns is not None else -1
        if near_ns is None or abs(moment - near_ns) > NEAR_NS:
            raise _bad_time()
    if moment < 0:
        raise _bad_time()
    return moment + fraction_ns


def _since_epoch(moment: datetime) -> int:
    return (moment - _EPOCH) // _SECOND * 1_000_000_000


def _bad_time() -> MalformedError:
    return MalformedError("bad-time", "it is not a time of HL7 that says at least the minute")
