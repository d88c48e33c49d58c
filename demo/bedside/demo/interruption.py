"""Ctrl-C, a closed terminal and `kill` all end the demo the same way: by an exception that passes every clean-up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGHUP do what SIGINT does while inside.

    Where a loop runs, that cancels its main task: an exception out of nowhere would lose a child that has just begun.
    """

    def interrupt(_number: int, frame: FrameType | None) -> None:
        as_ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(as_ctrl_c):  # ignored, as where a shell has started us in the background
            raise KeyboardInterrupt
        as_ctrl_c(signal.SIGINT, frame)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore further Ctrl-C and their like while inside: for clean-up that must come to its end."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *_SIGNALS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
