"""Those who follow predictions: each has a bounded queue, and a slow one loses its oldest, never ours."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from bedside.proto.v1.local_pb2 import Prediction

MAX_WAITING: Final = 1_000
"""Predictions that a follower may lag behind; the stored ones can be asked for again by id."""


class Followers:
    """Hands every prediction to everybody who follows, without waiting for any of them."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Prediction]] = set()
        self._recent: deque[Prediction] = deque(maxlen=MAX_WAITING)

    def publish(self, prediction: Prediction) -> None:
        """Offer a prediction to every follower, and keep it for those who come before it is stored."""
        self._recent.append(prediction)
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(prediction)

    def recent(self) -> Sequence[Prediction]:
        """The newest, oldest first: among them all that wait for their commit."""
        return tuple(self._recent)

    @contextmanager
    def subscribe(self) -> Iterator[AsyncIterator[Prediction]]:
        """Follow from now on, until the block is left."""
        queue: asyncio.Queue[Prediction] = asyncio.Queue(MAX_WAITING)
        self._queues.add(queue)
        try:
            yield _drain(queue)
        finally:
            self._queues.discard(queue)


async def _drain(queue: asyncio.Queue[Prediction]) -> AsyncIterator[Prediction]:
    while True:
        yield await queue.get()
