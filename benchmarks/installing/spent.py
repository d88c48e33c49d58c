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
from typing import Final

_BLOCK_BYTES: Final = 512
"""What st_blocks counts in."""


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


@dataclass(frozen=True)
class Size:
    """Megabytes (10^6 bytes).

    Attributes:
        files_mb: of regular files, as long as they are.
        on_disk_mb: of the blocks that they take.
    """

    files_mb: float
    on_disk_mb: float

    def __sub__(self, other: Size) -> Size:
        """What is there more than in another folder."""
        return Size(self.files_mb - other.files_mb, self.on_disk_mb - other.on_disk_mb)


def size_of(folder: Path, without: Iterable[str] = ()) -> Size:
    """The files in a folder, less those below some of its own folders."""
    left_out = tuple(str(folder / name) + os.sep for name in without)
    paths = [Path(top) / name for top, _, names in os.walk(folder) for name in names]
    counted = [
        path.stat() for path in paths if path.is_file() and not path.is_symlink() and not str(path).startswith(left_out)
    ]
    return Size(sum(one.st_size for one in counted) / 1e6, sum(one.st_blocks for one in counted) * _BLOCK_BYTES / 1e6)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
