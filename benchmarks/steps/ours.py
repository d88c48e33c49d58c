"""`python ours.py JOB`: the device's own step on the ordinary onnxruntime."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bedside.core.bundle.parameters import TensorSpec
from bedside.ondevice.training.step import Rates, TrainingStep
from steps.job import Arrays, Job, measure


def build(job: Job, start: Arrays) -> tuple[TrainingStep, object]:
    """A step of our graph."""
    optimiser = [TensorSpec(name, shape, shared=False) for name, shape in job.optimiser.items()]
    step = TrainingStep(Path(job.graph).read_bytes(), start, optimiser, Rates(job.learning_rate, job.momentum))
    return step, step.parameters


if __name__ == "__main__":
    measure(build)
