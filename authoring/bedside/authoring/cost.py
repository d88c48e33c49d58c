"""`python -m bedside.authoring.cost FOLDER`: one training step's time and memory, measured where nothing else runs.

A process of its own, without onnx in it: its resident memory is what a device's training process will have. It trains
by the device's own step, and tells the processor's time, which other work on the author's machine does not lengthen.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import msgspec

from bedside.core.bundle.parameters import TensorSpec
from bedside.core.bundle.tensors import decode_tensors, encode_tensors
from bedside.core.bundle.training import Cost, TrainingGraph
from bedside.core.errors import UnavailableError
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.step import Rates, Targets, TrainingStep

_GRAPH: Final = "train.onnx"
_STATE: Final = "state.safetensors"
_BATCH: Final = "batch.safetensors"
_KIND: Final = "kind.json"
_WARM_STEPS: Final = 5
_STEPS: Final = 30
_TIMEOUT_S: Final = 300.0
_KIB_PER_MB: Final = 1_000_000 / 1_024
_RATES: Final = Rates(learning_rate=1e-3, momentum=0.9, gradient_clip=1.0)


class _Kind(msgspec.Struct, frozen=True):
    """Which graph it is, and the tensors of its optimiser."""

    graph: TrainingGraph
    optimiser: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Measurable:
    """What a training graph is measured with.

    Attributes:
        kind: which one it is.
        graph: its bytes.
        parameters: to start from.
        optimiser: its optimiser's tensors.
    """

    kind: TrainingGraph
    graph: bytes
    parameters: Mapping[str, Float32]
    optimiser: Sequence[TensorSpec]


def batch_sizes(recommended: int) -> tuple[int, ...]:
    """The batches that a bundle's table has: the recommended one, its half and its double."""
    return tuple(sorted({max(1, recommended // 2), recommended, 2 * recommended}))


def measure_cost(measured: Measurable, x: Float32, y: Targets) -> Cost:
    """Measure a training graph with the batch `x`, `y`, in a child.

    Raises:
        UnavailableError: `cost-not-measured`.
    """
    with tempfile.TemporaryDirectory(prefix="bedside-cost-") as name:
        folder = Path(name)
        (folder / _GRAPH).write_bytes(measured.graph)
        (folder / _STATE).write_bytes(encode_tensors(measured.parameters))
        (folder / _BATCH).write_bytes(encode_tensors({"x": x, "y": y}))
        (folder / _KIND).write_bytes(msgspec.json.encode(_Kind(measured.kind, tuple(measured.optimiser))))
        done = subprocess.run(
            [sys.executable, "-m", "bedside.authoring.cost", name],
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


def time_steps(folder: Path, processor_s: Callable[[], float]) -> Cost:
    """In the child: train with what is in `folder` and report the median step and this process's peak memory."""
    kind = msgspec.json.decode((folder / _KIND).read_bytes(), type=_Kind)
    state = cast("dict[str, Float32]", decode_tensors((folder / _STATE).read_bytes()))
    batch = decode_tensors((folder / _BATCH).read_bytes())
    x, y = cast("Float32", batch["x"]), cast("Targets", batch["y"])
    step = TrainingStep((folder / _GRAPH).read_bytes(), state, kind.optimiser, _RATES)
    steps_ms = []
    for _ in range(_WARM_STEPS + _STEPS):
        began_s = processor_s()
        step(x, y)
        steps_ms.append((processor_s() - began_s) * 1e3)
    return Cost(
        graph=kind.graph.key,
        batch=len(x),
        step_ms=round(statistics.median(steps_ms[_WARM_STEPS:]), 3),
        rss_mb=round(_peak_kib() / _KIB_PER_MB, 1),
    )


def _peak_kib() -> int:
    """Most resident memory since this program was started; getrusage would count what its parent had when it forked."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise UnavailableError("cost-not-measured", "this kernel does not tell a process's peak memory")
    return int(found[1])


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(time_steps(Path(sys.argv[1]), time.process_time)))
