"""Limited children of a program that is not asynchronous, or of a part of one that is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bedside.ondevice.confinement import Limits, run_child


def ask_child(module: str, job: bytes, limits: Limits, on_progress: Callable[[bytes], None] | None = None) -> bytes:
    """As `run_child`, and wait for it: its loop has a thread of its own, so that another loop may run here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(run_child(module, job, limits, on_progress))).result()
