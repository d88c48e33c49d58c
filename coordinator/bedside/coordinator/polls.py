"""Calls that wait for news: they hold no place in the server, and a caller has two of them at most."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from bedside.coordinator.signals import Signal
from bedside.service.link.calls import waiting

MAX_POLLS: Final = 2
"""Waiting calls of one credential: its newest, and the one before, whose connection may be dead."""


class Polls:
    """Who waits. Use from the event loop only."""

    def __init__(self) -> None:
        self._turns: dict[bytes, deque[asyncio.Timeout]] = {}

    async def wait(self, caller: bytes, signal: Signal, seen: int, timeout_s: float) -> bool:
        """Wait as `signal.wait` for a caller's credential; False when newer calls of it took the place."""
        turns = self._turns.setdefault(caller, deque())
        while len(turns) >= MAX_POLLS:
            turns.popleft().reschedule(0)
        turn = asyncio.timeout(None)
        try:
            with waiting():
                async with turn:
                    turns.append(turn)
                    await signal.wait(seen, timeout_s)
        except TimeoutError:
            return False
        finally:
            if turn in turns:
                turns.remove(turn)
            if not turns and self._turns.get(caller) is turns:
                del self._turns[caller]
        return True
