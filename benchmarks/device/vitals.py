"""A kind of source for benchmarks: a patient's vital signs, once a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from bedside.agent.config import SourceConfig
from bedside.agent.sources.kind import SourceContext, SourceKind, SourceOptions, option
from bedside.agent.sources.registry import BUILT_IN
from bedside.core.ids import StreamId
from bedside.core.samples import Record
from device.signals import UNITS, vital_signs


class VitalOptions(SourceOptions, frozen=True, kw_only=True):
    """A patient."""

    number: Annotated[int, option("which patient")]
    seconds: Annotated[int, option("how long")]

    def streams(self) -> tuple[str, ...]:
        """Its name."""
        return (self.name,)


class VitalSigns:
    """A `Source` of one record per second."""

    def __init__(self, options: VitalOptions, context: SourceContext) -> None:
        self.name = options.name
        self._options = options
        self._clock = context.clock

    async def events(self) -> AsyncIterator[Record]:
        """Yield the records of so many seconds, each when it is due."""
        began_s, began_ns = self._clock.monotonic_s(), self._clock.now_ns()
        for second in range(self._options.seconds):
            await asyncio.sleep(max(0.0, began_s + second - self._clock.monotonic_s()))
            values = vital_signs(self._options.number, second)
            yield Record(StreamId(self.name), began_ns + second * 1_000_000_000, values, UNITS)


KIND = SourceKind(VitalOptions, VitalSigns)


def patients(count: int, seconds: int) -> list[SourceConfig]:
    """So many sources."""
    BUILT_IN["vitals"] = __name__
    return [
        SourceConfig(kind="vitals", name=f"vitals-{number}", options={"number": number, "seconds": seconds})
        for number in range(count)
    ]
