"""`python -m bedside.agent.training.child`: one training run, its delta in a file.

The limits are applied before numpy and onnxruntime are loaded. A round's child does the same up to `train`, and goes on
to clip, encode and mask in memory instead of writing the delta.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bedside.core.errors import BedsideError
from bedside.ondevice.confinement import (
    confine,
    decode_job,
    heed_stop,
    read_job,
    report_error,
    report_progress,
    report_result,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from bedside.agent.training.job import Job
    from bedside.ondevice.training.train import Trained


def main() -> None:
    """Confine this process, run the job on standard input, report."""
    confine(sys.argv[1:])
    try:
        report_result(_run(read_job()))
    except BedsideError as error:
        report_error(error)


def _run(data: bytes) -> object:
    from bedside.agent.training.job import Job, Outcome
    from bedside.core.bundle.tensors import encode_tensors
    from bedside.service.files import write_durable

    stopping = heed_stop()
    job = decode_job(data, Job)
    trained = _train(job, stopping)
    if job.result:
        write_durable(Path(job.result), encode_tensors(trained.delta))
    return Outcome(trained.counts, job.result)


def _train(job: Job, stopping: Callable[[], bool]) -> Trained:
    from bedside.agent.training.job import load_bundle, load_examples, load_parameters
    from bedside.agent.training.sitting import Sitting
    from bedside.ondevice.training.train import train
    from bedside.service.platform import SystemClock, SystemEntropy

    bundle = load_bundle(job)
    start = load_parameters(job, bundle)
    clock, entropy = SystemClock(), SystemEntropy()
    if not job.state_dir:
        sitting = Sitting(None, job.budget, clock, entropy, stopping)
        return train(bundle, start, load_examples(job), job.schedule, report_progress, between=sitting.between)
    from bedside.agent.buffer.keys import load_key_ring
    from bedside.agent.training.on_buffer import Course, Device, train_on_buffer
    from bedside.service.identity import DIRECTORY_NAME

    ring = load_key_ring(Path(job.state_dir) / DIRECTORY_NAME)
    course = Course(job.task, b"", bundle, start, job.schedule, job.max_windows)
    return train_on_buffer(
        course, Device(Path(job.state_dir), ring, clock, entropy, stopping), job.budget, report_progress
    ).trained


if __name__ == "__main__":
    main()
