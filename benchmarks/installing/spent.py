"""Time of commands, and sizes of folders."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Spent:
    """Seconds on the clock, and of processors by this process's children; set when the measurement ends."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def spending() -> Iterator[Spent]:
    """Measure what the children that end inside take."""
    spent, began_s, before_s = Spent(), time.monotonic(), _cpu_s()
    yield spent
    spent.wall_s, spent.cpu_s = time.monotonic() - began_s, _cpu_s() - before_s


def run(command: Sequence[str | Path]) -> Spent:
    """Run a command that must succeed; RuntimeError with the end of what it said."""
    with spending() as spent:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {' '.join(said[-3:])[-300:]}")
    return spent


def size_mb(folder: Path, without: Iterable[str] = ()) -> float:
    """Megabytes (10^6 bytes) of the regular files in a folder, less those below some of its own folders."""
    left_out = tuple(str(folder / name) + os.sep for name in without)
    files = (Path(top) / name for top, _, names in os.walk(folder) for name in names)
    counted = [
        path for path in files if not str(path).startswith(left_out) and path.is_file() and not path.is_symlink()
    ]
    return sum(path.stat().st_size for path in counted) / 1e6


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
