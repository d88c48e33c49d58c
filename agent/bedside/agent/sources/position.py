"""How far a source has read, across restarts: one small file per source in the state directory.

Invariant: a position is written after all that was yielded up to it is durable. Killed in between, a source reads a
stretch again: it may never miss one. It is written about once per second at most, because SD cards wear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from bedside.agent.sources.kind import SourceContext
from bedside.core.errors import MalformedError, StoreError
from bedside.core.ids import StreamId
from bedside.core.unreadable import UNREADABLE
from bedside.service.files import read_regular, write_durable

DIRECTORY_NAME: Final = "positions"
MAX_POSITION_BYTES: Final = 4 << 20
KEEP_INTERVAL_S: Final = 1.0
MAX_WAITING_EVENTS: Final = 4_000
"""Records that may wait for the disk: about a megabyte of the eight beyond which the buffer drops the oldest."""

Place = TypeVar("Place", bound=msgspec.Struct)


class Position(Generic[Place]):
    """The position of one source."""

    def __init__(self, name: str, kind: type[Place], context: SourceContext) -> None:
        """Prepare; nothing is read yet.

        Args:
            name: of the source.
            kind: what describes a position.
            context: of the source.
        """
        self._path = context.state_dir / DIRECTORY_NAME / f"{name}.json"
        self._kind = kind
        self._context = context
        self._kept: Place | None = None
        self._kept_s: float | None = None
        self._waiting = 0

    def read(self) -> Place | None:
        """The position that was kept last; None without one.

        Raises:
            StoreError: `position-unreadable`: it is there, and cannot be read. To begin again in silence would deliver
                everything twice.
        """
        try:
            self._kept = decode_position(read_regular(self._path, MAX_POSITION_BYTES), self._kind)
        except FileNotFoundError:
            return None
        except (OSError, MalformedError) as error:
            raise StoreError(
                "position-unreadable",
                f"{self._path} does not say how far was read: {error}",
                remedy="remove it, and the source begins at the beginning; what is stored is recognised by its time",
            ) from error
        return self._kept

    async def keep(self, place: Place, streams: Collection[StreamId], events: int = 0) -> bool:
        """Wait until what was yielded of `streams` is durable, then keep `place`; False while it is too early for it.

        A source with a backlog yields faster than a disk writes: after `MAX_WAITING_EVENTS` this waits, early or not.

        Args:
            place: reached.
            streams: of the source.
            events: that it has yielded since it asked last.

        Raises:
            StoreError: `file-write`, or `not-kept` from `durable`; the old position holds, and the source, which fails
                with it, reads again from there.
        """
        if place == self._kept:
            return True
        self._waiting += events
        now_s = self._context.clock.monotonic_s()
        early = self._kept_s is not None and now_s - self._kept_s < KEEP_INTERVAL_S
        if early and self._waiting < MAX_WAITING_EVENTS:
            return False
        await self._context.durable(streams)
        self._waiting = 0
        if early:
            return False
        await asyncio.to_thread(_write, self._path, msgspec.json.encode(place))
        self._kept, self._kept_s = place, now_s
        return True


def decode_position(data: bytes, kind: type[Place]) -> Place:
    """Read what `Position.keep` wrote.

    Raises:
        MalformedError: `bad-position`.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise MalformedError("bad-position", "it is not a position") from error


def _write(path: Path, data: bytes) -> None:
    with suppress(OSError):  # then the write fails, and says so
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_durable(path, data)
