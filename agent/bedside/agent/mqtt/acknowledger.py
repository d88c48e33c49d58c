"""Acknowledges messages in batches, each after what its messages became is on the disk.

Invariant: no message is acknowledged before `durable` has returned for every stream that was written since.

An acknowledgement brings the group commit forward, and closes what is open of a waveform; so it waits for company, as
long as that does not hold up the broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import Final

from bedside.core.ids import StreamId

PATIENCE_S: Final = 1.0
"""Seconds that a message waits for company: as long as the group commit takes by itself."""
MANY: Final = 128
"""Messages that wait for nothing more: half of those that may be in flight."""
MOST: Final = 512
"""Messages that wait for the disk before no more are taken, whatever a broker sends."""
_FEW: Final = 16
"""Messages that wait no more once nothing comes: many brokers stop at 20 in flight, whatever we allow."""
_LULL_S: Final = 0.05


class Acknowledger:
    """What waits to be acknowledged, of one source. Streams survive a lost connection; numbers mean nothing then."""

    def __init__(self, durable: Callable[[Collection[StreamId]], Awaitable[None]]) -> None:
        """Prepare.

        Args:
            durable: see `SourceContext`.
        """
        self._durable = durable
        self._numbers: list[int] = []
        self._streams: set[StreamId] = set()
        self._added = asyncio.Event()
        self._many = asyncio.Event()
        self._unanswered = 0
        self._answered = asyncio.Event()

    def written(self, stream: StreamId) -> None:
        """Something of this stream was handed over."""
        self._streams.add(stream)

    def add(self, number: int) -> None:
        """All that this message became was handed over."""
        self._numbers.append(number)
        self._unanswered += 1
        self._added.set()
        if len(self._numbers) >= MANY:
            self._many.set()

    async def room(self) -> None:
        """Return when less than `MOST` messages wait for the disk."""
        while self._unanswered >= MOST:
            self._answered.clear()
            await self._answered.wait()

    def begin(self) -> None:
        """A new connection: numbers of an old one mean nothing on it."""
        self._numbers.clear()
        self._many.clear()
        self._unanswered = 0

    async def run(self, send: Callable[[Iterable[int]], None]) -> None:
        """Acknowledge until cancelled, on the connection that has begun.

        Args:
            send: sends acknowledgements of these numbers.
        """
        while True:
            await self._company()
            numbers, self._numbers = self._numbers, []
            self._many.clear()
            streams, self._streams = self._streams, set()
            try:
                await self._durable(streams)
            except BaseException:
                self._streams |= streams
                self._unanswered = 0  # who waits for room hears of the failure instead
                self._answered.set()
                raise
            send(numbers)
            self._unanswered -= len(numbers)
            self._answered.set()

    async def _company(self) -> None:
        """Return when it is time to acknowledge something."""
        loop = asyncio.get_running_loop()
        while not self._numbers:
            self._added.clear()
            await self._added.wait()
        until_s = loop.time() + PATIENCE_S
        while len(self._numbers) < MANY and (left_s := until_s - loop.time()) > 0:
            known = len(self._numbers)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._many.wait(), min(_LULL_S, left_s))
            if known >= _FEW and len(self._numbers) == known:
                return
