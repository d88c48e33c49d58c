"""A real agent in a process of its own, whose sources wait for others: `python listening.py DIRECTORY OUT`.

It ends when it is told to, and writes down when each event arrived.
"""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bedside.agent.config import load_agent_config
from bedside.agent.daemon import run_agent
from bedside.service.platform import SystemClock, SystemEntropy
from device.noted import ARRIVALS, noted


def main(directory: Path, out: Path) -> None:
    """Run until SIGTERM."""
    config = noted(load_agent_config(directory))
    asyncio.run(run_agent(directory, config, SystemClock(), SystemEntropy(), version("bedside")))
    np.save(out, np.array(ARRIVALS, dtype="i8,i8,f8"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
