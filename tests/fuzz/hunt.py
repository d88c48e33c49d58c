"""One input before one parser: the errors, the memory and the time that it may cost."""

from __future__ import annotations

import resource
import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from parsers import Parser

HANG_S = 10.0
"""Seconds of this process's own time after which an input counts as one that hangs."""

ROOM_BYTES = 256 << 20
"""Address space that all inputs of a batch may take beyond what the process had."""


class HangError(BaseException):
    """An input that is not done in time; no parser can catch it."""


def complaint(parser: Parser, data: bytes, *, weigh: bool = False) -> str:
    """What is wrong with how `parser` takes `data`; empty when nothing is."""
    base = 0
    if weigh:
        tracemalloc.start()
        base = tracemalloc.get_traced_memory()[0]
    try:
        parser.parse(data)
    except parser.allowed as error:
        if not (error.code and error.sentence):
            return f"{type(error).__name__} without a code or sentence"
    except HangError:
        return f"is not done after {HANG_S:g} s"
    except Exception as error:  # noqa: BLE001  # that is what is looked for
        return f"raises {type(error).__name__}: {str(error)[:200]}"
    finally:
        peak = tracemalloc.get_traced_memory()[1] - base if weigh else 0
        tracemalloc.stop()
    most = parser.base_bytes + parser.times * len(data)
    return f"takes {peak:,} bytes for an input of {len(data):,}; {most:,} are allowed" if peak > most else ""


def _hangs(_: int, __: FrameType | None) -> None:
    raise HangError


@contextmanager
def fenced() -> Iterator[None]:
    """Inside, memory beyond `ROOM_BYTES` fails, and `restart_watch` bounds the time of what follows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now_bytes = int(file.read().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGVTALRM, _hangs)
    resource.setrlimit(resource.RLIMIT_AS, (now_bytes + ROOM_BYTES, hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, before)


def restart_watch() -> None:
    """The next input may take `HANG_S` from now on."""
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
