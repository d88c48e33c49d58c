"""`python -m bedside.authoring.cost FOLDER`: one training step's time and memory, measured where nothing else runs.

A process of its own, without onnx in it: its resident memory is what a device's training process will have.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, cast

import msgspec
import numpy as np
import onnxruntime as ort

from bedside.core.bundle.tensors import Array, decode_tensors, encode_tensors
from bedside.core.bundle.training import Cost, TrainingGraph
from bedside.core.clock import Clock
from bedside.core.errors import UnavailableError
from bedside.service.platform import SystemClock

_GRAPH: Final = "train.onnx"
_FEEDS: Final = "feeds.safetensors"
_WARM_STEPS: Final = 5
_STEPS: Final = 30
_TIMEOUT_S: Final = 300.0
_KIB_PER_MB: Final = 1_000_000 / 1_024


def measure_cost(kind: TrainingGraph, graph: bytes, feeds: dict[str, Array]) -> Cost:
    """Measure a training graph in a child.

    Args:
        kind: which one it is.
        graph: its bytes.
        feeds: an array for each of its inputs; `x` has the batch size that is measured.

    Raises:
        UnavailableError: `cost-not-measured`.
    """
    with tempfile.TemporaryDirectory(prefix="bedside-cost-") as name:
        folder = Path(name)
        (folder / _GRAPH).write_bytes(graph)
        (folder / _FEEDS).write_bytes(encode_tensors(feeds))
        done = subprocess.run(
            [sys.executable, "-m", "bedside.authoring.cost", name, kind.key],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    if done.returncode != 0:
        raise UnavailableError(
            "cost-not-measured",
            f"the training step could not be measured: {done.stderr.decode(errors='replace').strip()[-200:]}",
            remedy="state [[costs]] in the recipe, or free memory",
        )
    return msgspec.json.decode(done.stdout, type=Cost)


def time_steps(folder: Path, key: str, clock: Clock) -> Cost:
    """In the child: run the graph in `folder` and report its median step and this process's peak memory."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession((folder / _GRAPH).read_bytes(), options, providers=["CPUExecutionProvider"])
    feeds = decode_tensors((folder / _FEEDS).read_bytes())
    steps_ms = []
    for _ in range(_WARM_STEPS + _STEPS):
        began_s = clock.monotonic_s()
        session.run(None, cast("dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]", feeds))
        steps_ms.append((clock.monotonic_s() - began_s) * 1e3)
    return Cost(
        graph=key,
        batch=len(feeds["x"]),
        step_ms=round(statistics.median(steps_ms[_WARM_STEPS:]), 2),
        rss_mb=round(_peak_kib() / _KIB_PER_MB, 1),
    )


def _peak_kib() -> int:
    """Most resident memory since this program was started; getrusage would count what its parent had when it forked."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise UnavailableError("cost-not-measured", "this kernel does not tell a process's peak memory")
    return int(found[1])


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(time_steps(Path(sys.argv[1]), sys.argv[2], SystemClock())))
