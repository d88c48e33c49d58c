"""The service manager's end of sd_notify(3), for tests of real daemons: what they say, as it comes."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

WATCHDOG_S: Final = 0.4


class Manager:
    """Hears one daemon.

    Attributes:
        environment: what the daemon is started with.
        heard: every message so far.
    """

    def __init__(self, receiver: socket.socket, address: Path) -> None:
        self._receiver = receiver
        self.heard: list[str] = []
        self.environment = os.environ | {
            "NOTIFY_SOCKET": str(address),
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
            "PYTHONUNBUFFERED": "1",
        }

    def until(self, *words: str, within_s: float = 40.0) -> str:
        """The next message that holds all words."""
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            try:
                told = self._receiver.recv(4096).decode()
            except TimeoutError:
                continue
            self.heard.append(told)
            if all(word in told for word in words):
                return told
        raise AssertionError(f"not heard: {words}, but {self.heard[-20:]}")


@contextmanager
def listening(folder: Path) -> Iterator[Manager]:
    """A manager with its socket in a folder of a short name."""
    address = folder / "n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(address))
        receiver.settimeout(0.2)
        yield Manager(receiver, address)
