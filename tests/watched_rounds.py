"""What a test sees of a federation by its coordinator's commands, and how it waits."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import pytest

DEADLINE_S: Final = 180.0
"""Longer than anything takes: whoever runs the tests may have little processor to spare."""

Found = TypeVar("Found")


def wait_until(
    look: Callable[[], Found], what: str, *, deadline_s: float = DEADLINE_S, interval_s: float = 0.05
) -> Found:
    """Look again and again until the answer is true, and return it; fail when the deadline has passed."""
    end_s = time.monotonic() + deadline_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end_s:
            pytest.fail(f"within {deadline_s:.0f} s it never came that {what}")
        time.sleep(interval_s)


class WatchedRounds(ABC):
    """The devices of a federation, and the rounds of its task.

    Attributes:
        task: its name.
    """

    task: ClassVar[str]

    @abstractmethod
    def ask(self, *arguments: str | Path) -> Any:
        """A command on the coordinator's socket; what it printed with --json."""

    def online(self) -> int:
        """How many devices have called lately."""
        return sum(site["online"] for site in self.ask("fleet", "status")["sites"])

    def show(self, number: int) -> Any:
        """One round as it is now."""
        return self.ask("round", "show", "--task", self.task, "--round", str(number))

    def wait_round(self, number: int, holds: Callable[[Any], object], what: str) -> Any:
        """Wait until a round is so; the round."""

        def look() -> Any:
            detail = self.show(number)
            if not holds(detail) and detail["finished_at_s"]:
                pytest.fail(f"round {number} ended before it came that {what}: {json.dumps(detail, indent=1)}")
            return detail if holds(detail) else None

        return wait_until(look, what)

    def finish_round(self, number: int) -> Any:
        """Wait until a round has ended; the round."""
        return self.wait_round(number, lambda detail: detail["finished_at_s"], f"round {number} ends")
