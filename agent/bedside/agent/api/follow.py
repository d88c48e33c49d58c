"""Those who follow what happens: each has a bounded queue, and a slow one loses its oldest, never ours."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from bedside.core.errors import UnavailableError
from bedside.proto.v1.local_pb2 import Alarm, Prediction
from bedside.service.link.calls import waiting

MAX_WAITING: Final = 1_000
"""What a follower may lag behind; what is stored can be asked for again by id."""

MAX_FOLLOWERS: Final = 256
"""Of one feed: each costs up to a queue, and a message for everything that is made."""

Item = TypeVar("Item", Prediction, Alarm)


class Feed(Generic[Item]):
    """Hands every item to everybody who follows, without waiting for any of them."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Item]] = set()
        self._recent: deque[Item] = deque(maxlen=MAX_WAITING)

    def publish(self, item: Item) -> None:
        """Offer an item to every follower, and keep it for those who come before it is stored."""
        self._recent.append(item)
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(item)

    def forget(self, session: str) -> None:
        """Keep nothing of an erased session for those who come later."""
        self._recent = deque((item for item in self._recent if item.session != session), MAX_WAITING)

    def recent(self) -> Sequence[Item]:
        """The newest, oldest first: among them all that wait for their commit."""
        return tuple(self._recent)

    @contextmanager
    def subscribe(self) -> Iterator[AsyncIterator[Item]]:
        """Follow from now on, until the block is left.

        Raises:
            UnavailableError: `too-many-followers`.
        """
        if len(self._queues) >= MAX_FOLLOWERS:
            raise UnavailableError(
                "too-many-followers",
                f"{MAX_FOLLOWERS} others follow this already",
                remedy="end some of them; whoever has lost its follower asks again from the last id that it saw",
            )
        queue: asyncio.Queue[Item] = asyncio.Queue(MAX_WAITING)
        self._queues.add(queue)
        try:
            yield _drain(queue)
        finally:
            self._queues.discard(queue)


class Followers(Feed[Prediction]):
    """Those who follow predictions."""


class AlarmFollowers(Feed[Alarm]):
    """Those who follow alarms."""


async def _drain(queue: asyncio.Queue[Item]) -> AsyncIterator[Item]:
    while True:
        with waiting():
            item = await queue.get()
        yield item
