"""One training step's time and memory, measured in a limited child where nothing else runs.

The child has neither onnx nor an author's data in it: it takes the memory that a device's training process will take.
"""

from __future__ import annotations

import re
import resource
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from bedside.core.bundle.parameters import TensorSpec
from bedside.core.bundle.training import Cost, TrainingGraph
from bedside.core.errors import BedsideError, UnavailableError
from bedside.ondevice.confinement import (
    Limits,
    confine,
    decode_job,
    forbid_writing,
    read_job,
    read_outcome,
    report_error,
    report_result,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bedside.core.bundle.tensors import Array
    from bedside.ondevice.runtimes import Float32

CHILD: Final = "bedside.authoring.cost"
_GRAPH: Final = "train.onnx"
_START: Final = "start.safetensors"
_BATCH: Final = "batch.safetensors"
_WARM_STEPS: Final = 5
_STEPS: Final = 30
LIMITS: Final = Limits(address_space_bytes=4 << 30, timeout_s=300, nice=0)
_KIB_PER_MB: Final = 1_000_000 / 1_024


class Measuring(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the child is to measure.

    Attributes:
        folder: where the graph, its parameters and its examples are.
        graph: which graph it is.
        changed: the tensors that it may change.
        batch: examples per step; those in the folder are repeated.
        rates: learning rate, momentum, weight of the FedProx term, largest norm of a gradient.
    """

    folder: str
    graph: TrainingGraph
    changed: tuple[TensorSpec, ...]
    batch: int
    rates: tuple[float, float, float, float]


def batch_sizes(recommended: int) -> tuple[int, ...]:
    """The batches that a bundle's table has: the recommended one, its half and its double."""
    return tuple(sorted({max(1, recommended // 2), recommended, 2 * recommended}))


def measure_cost(
    graph: TrainingGraph,
    data: bytes,
    start: Mapping[str, Float32],
    changed: tuple[TensorSpec, ...],
    examples: tuple[Float32, Array],
    batch: int,
    rates: tuple[float, float, float, float],
    limits: Limits | None = None,
) -> Cost:
    """Measure a training graph in a child.

    Args:
        graph: which one it is.
        data: its bytes.
        start: every parameter of the model.
        changed: the tensors that the graph may change.
        examples: windows (N, L, C) and what is to be learnt of them.
        batch: examples per step.
        rates: learning rate, momentum, weight of the FedProx term, largest norm of a gradient.
        limits: of the child; `LIMITS` by default.

    Raises:
        UnavailableError: `cost-not-measured`.
    """
    from bedside.authoring.children import ask_child
    from bedside.core.bundle.tensors import encode_tensors

    with tempfile.TemporaryDirectory(prefix="bedside-cost-") as name:
        folder = Path(name)
        (folder / _GRAPH).write_bytes(data)
        (folder / _START).write_bytes(encode_tensors(start))
        (folder / _BATCH).write_bytes(encode_tensors({"x": examples[0], "y": examples[1]}))
        job = msgspec.json.encode(Measuring(name, graph, changed, batch, rates))
        try:
            return read_outcome(ask_child(CHILD, job, limits or LIMITS), Cost)
        except BedsideError as error:
            raise UnavailableError(
                "cost-not-measured",
                f"a step of {graph.key} with {batch} examples could not be measured: {error.sentence}",
                remedy="state [[costs]] in the recipe, name smaller batches, or free memory",
            ) from error


def main() -> None:
    """The child: confine, step, report."""
    confine(sys.argv[1:])
    forbid_writing()
    try:
        report_result(time_steps(decode_job(read_job(), Measuring)))
    except BedsideError as error:
        report_error(error)


def time_steps(measuring: Measuring) -> Cost:
    """In the child: run the graph and report its median step, in processor time, and this process's peak memory."""
    import numpy as np

    from bedside.core.bundle.tensors import decode_tensors, float_tensors
    from bedside.core.bundle.training import optimiser_tensors
    from bedside.ondevice.training.step import Rates, TrainingStep

    folder, graph, batch = Path(measuring.folder), measuring.graph, measuring.batch
    examples = decode_tensors((folder / _BATCH).read_bytes())
    x, y = (np.resize(array, (batch, *array.shape[1:])) for array in (examples["x"], examples["y"]))
    step = TrainingStep(
        (folder / _GRAPH).read_bytes(),
        float_tensors((folder / _START).read_bytes()),
        optimiser_tensors(graph, measuring.changed),
        Rates(*measuring.rates),
    )
    steps_ms = []
    for _ in range(_WARM_STEPS + _STEPS):
        began_ms = _processor_ms()
        step(x, y)
        steps_ms.append(_processor_ms() - began_ms)
    return Cost(
        graph=graph.key,
        batch=batch,
        step_ms=round(statistics.median(steps_ms[_WARM_STEPS:]), 2),
        rss_mb=round(_peak_kib() / _KIB_PER_MB, 1),
    )


def _processor_ms() -> float:
    """Processor time of this process, which other processes' work does not lengthen."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1e3


def _peak_kib() -> int:
    """Most resident memory since this program was started; getrusage would count what its parent had when it forked."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise UnavailableError("cost-not-measured", "this kernel does not tell a process's peak memory")
    return int(found[1])


if __name__ == "__main__":
    main()
