"""When a scheduled sink is due: every so many seconds, or at times of day."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Final

from bedside.agent.formats.tables.row_time import zone_of
from bedside.core.errors import ConfigError
from bedside.service.text import bounded

MAX_TIMES: Final = 1_440
_TIME: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
_NS_PER_S: Final = 1_000_000_000


class Schedule:
    """Due every `every_s` seconds, or at each of `at` in a time zone."""

    def __init__(self, name: str, every_s: float, at: Sequence[str] = (), time_zone: str = "UTC") -> None:
        """Read the options of the sink `name`.

        Raises:
            ConfigError: `sink-config`: a time is none, or the zone is unknown.
        """
        self._every_ns = round(every_s * _NS_PER_S)
        self._at = sorted(_time_of(name, text) for text in at[:MAX_TIMES])
        try:
            self._zone = zone_of(time_zone)
        except ConfigError as error:
            raise ConfigError("sink-config", f"sink {name}: {error.sentence}", remedy=error.remedy) from error

    def next_ns(self, after_ns: int) -> int:
        """The first time that is due behind `after_ns`, when the last one was worked off."""
        if not self._at:
            return after_ns + self._every_ns
        day = datetime.fromtimestamp(after_ns // _NS_PER_S, UTC).astimezone(self._zone).date() - timedelta(days=1)
        while True:
            for one in self._at:
                due_ns = int(datetime.combine(day, one, self._zone).timestamp()) * _NS_PER_S
                if due_ns > after_ns:
                    return due_ns
            day += timedelta(days=1)


def _time_of(name: str, text: str) -> time:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ConfigError(
            "sink-config", f"sink {name}: {bounded(text, 20)!r} is no time of day", remedy='write for instance "06:00"'
        )
    return time(int(found[1]), int(found[2]))
