"""Tell the service manager how we are (sd_notify(3)); does nothing where no manager asked."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from typing import Final

from bedside.core.clock import Clock
from bedside.service.text import bounded

_US_PER_S: Final = 1_000_000


class Notifier:
    """The manager's end of the NOTIFY_SOCKET protocol. A manager that does not listen is never an error.

    Attributes:
        watchdog_interval_s: how often `watchdog` must be called (half of the manager's limit); None when it need not.
    """

    def __init__(self, clock: Clock, environ: Mapping[str, str] = os.environ) -> None:
        self._clock = clock
        self._address = _socket_address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_interval_s = _watchdog_interval_s(environ)

    def ready(self, status: str = "") -> None:
        """Say that start-up, or a reload, is complete."""
        self._send("READY=1", *_status(status))

    def status(self, text: str) -> None:
        """Show one sentence in `systemctl status`."""
        self._send(*_status(text))

    def watchdog(self) -> None:
        """Say that the work loop came round; call it from that loop only."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.monotonic_s() * _US_PER_S)}")

    def stopping(self, status: str = "") -> None:
        """Say that the process is about to end."""
        self._send("STOPPING=1", *_status(status))

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1.0)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return


def hold_reloads() -> None:
    """Have a SIGHUP end nothing that comes before the program listens for it: a start reads the newest file anyhow."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _socket_address(name: str) -> str:
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _status(text: str) -> list[str]:
    return [f"STATUS={bounded(text)}"] if text else []


def _watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    limit_us, process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not limit_us.isdecimal() or int(limit_us) == 0 or process not in ("", str(os.getpid())):
        return None
    return int(limit_us) / _US_PER_S / 2
