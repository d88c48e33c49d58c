"""Which of a record's values are news: what is older than what was heard is kept, and neither decided nor alarmed on.

Senders deliver backlogs, and several of them feed one stream out of order. A value of an hour ago must not clear the
alarm of now, nor raise one that is over. Each field is news by itself, for a monitor may send them one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Record

DEAF_S: Final = 60.0
"""Seconds in which nothing of a stream was news, after which everything is: its sender's clock was set back."""
_MAX_FIELDS: Final = 1_024


@dataclass(slots=True)
class _Heard:
    session: SessionId
    heard_s: float
    fields: dict[str, tuple[int, float]] = field(default_factory=dict)


class Freshness:
    """Of the records of all streams."""

    def __init__(self) -> None:
        self._heard: dict[StreamId, _Heard] = {}

    def news(self, record: Record, session: SessionId, now_s: float) -> Record | None:
        """The record with what is news in it, which has then been heard; None where nothing is."""
        heard = self._heard.get(record.stream)
        if heard is None or heard.session != session or now_s - heard.heard_s > DEAF_S:
            heard = self._heard[record.stream] = _Heard(session, now_s)
        fresh = {
            name: value
            for name, value in record.values.items()
            if name not in heard.fields or _is_news(heard.fields[name], record.time_ns, value)
        }
        if not fresh:
            return None
        if len(heard.fields) > _MAX_FIELDS:  # a sender that invents names
            heard.fields.clear()
        heard.heard_s = now_s
        heard.fields |= {name: (record.time_ns, value) for name, value in fresh.items()}
        return record if len(fresh) == len(record.values) else replace(record, values=fresh, units=_of(record, fresh))


def _is_news(before: tuple[int, float], time_ns: int, value: float) -> bool:
    time_before_ns, value_before = before
    if time_ns != time_before_ns:
        return time_ns > time_before_ns
    return value != value_before and not (math.isnan(value) and math.isnan(value_before))


def _of(record: Record, fields: Mapping[str, float]) -> dict[str, str]:
    return {name: unit for name, unit in record.units.items() if name in fields}
