"""A kind of source for benchmarks: it notes what a source of another kind delivers, and when."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any

import msgspec

from bedside.agent.config import AgentConfig, SourceConfig
from bedside.agent.sources.kind import SourceContext, SourceKind, SourceOptions, option
from bedside.agent.sources.registry import BUILT_IN, build_source, typed_source
from bedside.core.samples import Block, Event, Record, Source
from bedside.ondevice.windows.part import end_ns

ARRIVALS: list[tuple[int, int, float]] = []
"""(source, end of the block or time of the record in ns, monotonic seconds)."""
NAMES: list[str] = []
"""Sources in their order."""
ENDED: set[str] = set()
"""Sources that have delivered all they have."""


class NotedOptions(SourceOptions, frozen=True, kw_only=True):
    """A source of another kind."""

    kind: Annotated[str, option("its kind")]
    of: Annotated[dict[str, Any], option("its options")]

    @property
    def inner(self) -> SourceOptions:
        """Options of that source."""
        return typed_source(SourceConfig(kind=self.kind, name=self.name, options=self.of))

    def streams(self) -> tuple[str, ...]:
        """Those of that source."""
        return self.inner.streams()


class Noted:
    """A source whose events are noted as they arrive."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self._source = source
        self._number = len(NAMES)
        NAMES.append(source.name)

    async def events(self) -> AsyncIterator[Event]:
        """Yield what the source yields."""
        async for event in self._source.events():
            if isinstance(event, Block):
                ARRIVALS.append((self._number, end_ns(event), time.monotonic()))
            elif isinstance(event, Record):
                ARRIVALS.append((self._number, event.time_ns, time.monotonic()))
            yield event
        ENDED.add(self.name)


def _build(options: NotedOptions, context: SourceContext) -> Noted:
    return Noted(build_source(options.kind, options.inner, context))


KIND = SourceKind(NotedOptions, _build)


def noted(config: AgentConfig, more: Iterable[SourceConfig] = ()) -> AgentConfig:
    """The same configuration, with every source noted, and more of them."""
    BUILT_IN["noted"] = __name__
    sources = [
        SourceConfig(kind="noted", name=one.name, options={"kind": one.kind, "of": one.options})
        for one in (*config.sources, *more)
    ]
    return msgspec.structs.replace(config, sources=sources)
