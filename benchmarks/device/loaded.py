"""A real agent in a process of its own, under load: `python loaded.py DIRECTORY RECORD-STREAMS SECONDS OUT`.

It has its configured sources, and streams of records beside them. Every event's arrival
is noted before the agent sees it. It ends when its sources have.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bedside.agent import daemon
from bedside.agent.config import load_agent_config
from bedside.service.platform import SystemClock, SystemEntropy
from device.noted import ARRIVALS, ENDED, NAMES, noted
from device.vitals import patients


def written_bytes() -> int:
    """What this process has sent to the disk so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


async def run(directory: Path, records: int, seconds: int, out: Path) -> None:
    """Run until every source has ended and all is committed; write down what it took."""
    config = noted(load_agent_config(directory), patients(records, seconds))
    clock, entropy = SystemClock(), SystemEntropy()
    task = asyncio.create_task(daemon.run_agent(directory, config, clock, entropy, version("bedside")))
    deadline_s = time.monotonic() + 60
    while not ARRIVALS and not task.done():
        if time.monotonic() > deadline_s:
            raise SystemExit("no source has delivered anything within a minute")
        await asyncio.sleep(0.02)
    if task.done():
        await task
    began_s, cpu_s, bytes_before = time.monotonic(), time.process_time(), written_bytes()
    while len(ENDED) < len(NAMES) and not task.done():
        await asyncio.sleep(0.05)
    wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    await asyncio.sleep(1.2)  # the last group commit is due by then, as it would be while the device goes on
    os.kill(os.getpid(), signal.SIGTERM)
    await task
    told = {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "written_bytes": written_bytes() - bytes_before,
        "max_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "sources": NAMES,
    }
    np.save(out.with_suffix(".npy"), np.array(ARRIVALS, dtype="i8,i8,f8"))
    out.write_text(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
