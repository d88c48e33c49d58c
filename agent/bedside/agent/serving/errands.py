"""What is done for a slot beside everything else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from bedside.core.errors import BedsideError
from bedside.service.logs import event

_LOGGER = logging.getLogger(__name__)


class Errands:
    """Tasks of one event loop; what they fail with is logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, slot: str, work: Coroutine[None, None, None]) -> None:
        """Begin to do something for a slot."""

        async def guarded() -> None:
            try:
                await work
            except BedsideError as error:
                event(_LOGGER, "model-refused", level=logging.ERROR, slot=slot, error=error, remedy=error.remedy)
            except Exception:
                _LOGGER.exception("model-failed")

        task = asyncio.get_running_loop().create_task(guarded(), name=f"model {slot}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def done(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def cancel(self) -> None:
        """Leave undone what is under way."""
        for task in tuple(self._tasks):
            task.cancel()
