"""`python -m bedside.agent.training.child`: one training run, its delta in a file.

The limits are applied before numpy and onnxruntime are loaded. A round's child does the same up to `train`, and goes on
to clip, encode and mask in memory instead of writing the delta.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bedside.core.errors import BedsideError
from bedside.ondevice.confinement import (
    confine,
    decode_job,
    read_job,
    report_error,
    report_progress,
    report_result,
)


def main() -> None:
    """Confine this process, run the job on standard input, report."""
    confine(sys.argv[1:])
    try:
        report_result(_run(read_job()))
    except BedsideError as error:
        report_error(error)


def _run(data: bytes) -> object:
    from bedside.agent.training.job import Job, Outcome, load_bundle, load_parameters, load_windows
    from bedside.core.bundle.tensors import encode_tensors
    from bedside.ondevice.training.train import train
    from bedside.service.files import write_durable

    job = decode_job(data, Job)
    bundle = load_bundle(job)
    start = load_parameters(job, bundle)
    trained = train(bundle, start, load_windows(job, bundle), job.schedule, report_progress)
    if job.result:
        write_durable(Path(job.result), encode_tensors(trained.delta))
    return Outcome(trained.counts, job.result)


if __name__ == "__main__":
    main()
