"""What is left of a minute: per channel or field the number of values, mean, extremes and standard deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bedside.agent.buffer.rows import Moments, Session, Summary
from bedside.core.samples import Quality, Record
from bedside.ondevice.windows.part import Part


@dataclass(slots=True)
class _Channel:
    """Running moments of finite values (Chan, Golub and LeVeque 1983, for batches)."""

    name: str
    unit: str
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf

    def add(self, values: npt.NDArray[np.float64]) -> None:
        values = values[np.isfinite(values)]
        if not values.size:
            return
        count, mean = values.size, float(values.mean())
        step, total = mean - self.mean, self.count + count
        self.squares += float(np.square(values - mean).sum()) + step * step * self.count * count / total
        self.mean += step * count / total
        self.count = total
        self.minimum, self.maximum = min(self.minimum, float(values.min())), max(self.maximum, float(values.max()))

    def moments(self) -> Moments:
        if not self.count:
            return Moments(self.name, self.unit, 0, 0.0, 0.0, 0.0, 0.0)
        deviation = math.sqrt(self.squares / self.count)
        return Moments(self.name, self.unit, self.count, self.mean, self.minimum, self.maximum, deviation)


class PartSummary:
    """Sums up parts of one session, in physical units."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._channels: list[_Channel] = []
        self._quality = Quality.GOOD
        self._gaps = 0

    def add(self, part: Part, *, follows: bool) -> None:
        """Take a part, which follows the one before without a gap, or does not."""
        physical = part.values.astype(np.float64) * part.scale
        for number in range(len(self._channels), physical.shape[1]):
            self._channels.append(_Channel(str(number), part.unit))
        for channel, values in zip(self._channels, physical.T, strict=False):
            channel.add(values)
        self._quality |= part.quality
        self._gaps += not follows

    def summary(self, minute: int) -> Summary | None:
        """Of what was taken; None when that is nothing."""
        if not self._channels:
            return None
        session = self._session
        channels = tuple(channel.moments() for channel in self._channels)
        return Summary(session.stream, session.session, minute, channels, self._gaps, self._quality)


class RecordSummary:
    """Sums up records of one session, by field."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._fields: dict[str, _Channel] = {}
        self._quality = Quality.GOOD

    def add(self, record: Record) -> None:
        """Take a record; a value that is NaN is missing."""
        for name, value in record.values.items():
            field = self._fields.setdefault(name, _Channel(name, record.units.get(name, "")))
            field.add(np.array([value], np.float64))
        self._quality |= record.quality

    def summary(self, minute: int) -> Summary | None:
        """Of what was taken; None when that is nothing."""
        if not self._fields:
            return None
        session = self._session
        fields = tuple(self._fields[name].moments() for name in sorted(self._fields))
        return Summary(session.stream, session.session, minute, fields, 0, self._quality)
