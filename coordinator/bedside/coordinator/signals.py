"""News inside the process: who waits for a change of something wakes when it happens, not by asking again.

A signal carries nothing; whoever wakes reads the store. So a lost wake-up costs a waiting time, never a fact.
"""

from __future__ import annotations

import asyncio


class Signal:
    """A counter that can be waited for. Use from the event loop only."""

    def __init__(self) -> None:
        self.version = 0
        self._event = asyncio.Event()

    def bump(self) -> None:
        """Wake everybody who waits."""
        self.version += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seen: int, timeout_s: float) -> int:
        """Return the version once it differs from `seen`, or after `timeout_s` seconds as it is."""
        if self.version == seen and timeout_s > 0:
            event = self._event
            try:
                async with asyncio.timeout(timeout_s):
                    await event.wait()
            except TimeoutError:
                pass
        return self.version


class Signals:
    """What can be waited for.

    Attributes:
        offers: a round began or ended to collect, or a roster changed; devices wait.
        work: something for trustees to do.
        requests: a site decided a credential request.
        rounds: anything in a round; the driver and watching operators wait.
    """

    def __init__(self) -> None:
        self.offers = Signal()
        self.work = Signal()
        self.requests = Signal()
        self.rounds = Signal()
