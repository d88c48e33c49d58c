"""What a kind of source is: options, and how they become a source. Third parties bring their own (docs/sources.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from bedside.agent.kinds import option as option  # sources find it here
from bedside.core.clock import Clock
from bedside.core.ids import StreamId
from bedside.core.samples import Source


class SourceOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the options of one kind: every field but `name` is `Annotated` with `option`.

    Attributes:
        name: of the source, from `agent.toml`.
    """

    name: str

    def streams(self) -> tuple[str, ...]:
        """Ids of the streams that such a source may deliver; by default the option `stream`."""
        return (getattr(self, "stream", ""),)


Options = TypeVar("Options", bound=SourceOptions)


@dataclass(slots=True)
class SourceGauge:
    """What a source tells of itself beside its events; it changes this in place, and health reads it.

    Attributes:
        connected: whether its peer or device is there; None where that means nothing.
        detail: in a few words, for people: never anything about a patient.
        clock_offset_s: how far the sender's clock is ahead of ours; None while unknown.
        dropped: readings or samples that it had to let go.
        duplicates: messages that came again and were not taken again.
        listens: whether it waits for others to come, so that it is no fault that nobody has come yet.
    """

    connected: bool | None = None
    detail: str = ""
    clock_offset_s: float | None = None
    dropped: int = 0
    duplicates: int = 0
    listens: bool = False


async def _at_once(streams: Collection[StreamId]) -> None:
    del streams


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What every source may need.

    Attributes:
        clock: of the process.
        last_end_ns: end of what is stored of a stream, 0 when nothing is: signal time never goes back.
        directory: relative paths start here.
        durable: returns when all that the source has yielded of these streams is on the disk, or counted there as
            impossible to keep. A source that acknowledges waits for it first. It does not return while the disk
            refuses, and raises StoreError `not-kept` where that has cost something: let that end the source.
        gauge: of this source.
        state_dir: what must survive a restart; a source keeps its position there (see `position`).
        open_session: begin and origin of the session that is open on a stream; None when none is.
    """

    clock: Clock
    last_end_ns: Callable[[StreamId], int]
    directory: Path
    durable: Callable[[Collection[StreamId]], Awaitable[None]] = _at_once
    gauge: SourceGauge = field(default_factory=SourceGauge)
    state_dir: Path = Path("state")
    open_session: Callable[[StreamId], tuple[int, str] | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class SourceKind(Generic[Options]):
    """A kind of source.

    Attributes:
        options: Struct of `[sources.options]`.
        build: makes the source. It opens no connection and raises ConfigError or MalformedError, which name what is
            wrong with the options.
    """

    options: type[Options]
    build: Callable[[Options, SourceContext], Source]


AnyKind = SourceKind[Any]
