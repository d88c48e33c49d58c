"""What every measured process is given, and what it reports on its last line."""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from bedside.core.bundle.layers import Layer
from bedside.core.bundle.tensors import decode_tensors, encode_tensors

WARM = 20
COMPARED = 50
"""Steps after which parameters are compared."""


class Job(msgspec.Struct, frozen=True):
    """One measurement.

    Attributes:
        tensors: safetensors with the parameters, `x` (batches, N, L, C) float32 and `y` (batches, N) int64.
        layers: of the net.
        channels: of its windows.
        graph: our training graph; empty for others.
        optimiser: names and shapes of our optimiser's tensors.
        learning_rate: of SGD.
        momentum: of SGD.
        steps: that are timed.
        result: where to write the parameters after `COMPARED` steps.
    """

    tensors: str
    layers: tuple[Layer, ...]
    channels: int
    graph: str
    optimiser: dict[str, tuple[int, ...]]
    learning_rate: float
    momentum: float
    steps: int
    result: str


Arrays = dict[str, npt.NDArray[np.float32]]
Step = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], object]


def read(path: str) -> tuple[Job, Arrays, npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The job with its parameters and batches."""
    job = msgspec.json.decode(Path(path).read_bytes(), type=Job)
    tensors = decode_tensors(Path(job.tensors).read_bytes())
    x, y = tensors.pop("x"), tensors.pop("y")
    return job, {name: array.astype(np.float32) for name, array in tensors.items()}, x, y


def measure(build: Callable[[Job, Arrays], tuple[Step, Callable[[], Arrays]]]) -> None:
    """Train `COMPARED` steps and write the parameters; then time steps, and report.

    Args:
        build: makes a step of the job, and what takes its parameters out.
    """
    job, start, x, y = read(sys.argv[1])
    step, parameters = build(job, start)
    for _ in range(COMPARED):
        step(x[0], y[0])
    Path(job.result).write_bytes(encode_tensors(parameters()))
    taken = []
    for number in range(WARM + job.steps):
        began = time.process_time()
        step(x[number % len(x)], y[number % len(x)])
        taken.append((time.process_time() - began) * 1e3)
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert peak is not None
    print(json.dumps({"step_ms": statistics.median(taken[WARM:]), "rss_mb": int(peak[1]) * 1024 / 1e6}))
