"""`python -m bedside.demo.baselines JOB`: what training without a federation gives, measured beside the rounds.

The same training graph, starting parameters, rates and number of epochs as the federation: once per wearer alone, and
once on all wearers' windows in one place, which no hospital would allow and which is the mark to compare with.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from bedside.core.bundle.verify import Bundle, verify_archive
from bedside.demo.evaluation import cut_windows, float_accuracy
from bedside.firmware_bridge.recording import read_recording
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.train import Schedule, train
from bedside.service.files import write_durable

_NICE: Final = 19
"""Yields to the agents, whose rounds are the run itself."""


class BaselineJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to train and where to write the accuracies.

    Attributes:
        bundle: path of the bundle's tar.
        signer_pk: who must have signed it, hexadecimal.
        wearers: recording of every wearer that trains, by name.
        held_out: recordings that accuracies are measured on.
        epochs: passes over the data, as many as all rounds together.
        result: path of the JSON to write.
    """

    bundle: str
    signer_pk: str
    wearers: dict[str, str]
    held_out: tuple[str, ...]
    epochs: int
    batch: int
    learning_rate: float
    momentum: float
    proximal_mu: float
    seed: int
    result: str


class Baselines(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Accuracies on the held-out wearers: of each wearer alone, and pooled; windows that each wearer has."""

    alone: dict[str, float]
    pooled: float
    windows: dict[str, int]


def measure(job: BaselineJob) -> Baselines:
    """Train and measure all of it, in this process."""
    bundle = verify_archive(Path(job.bundle).read_bytes(), [bytes.fromhex(job.signer_pk)])
    spec, labels = bundle.manifest.window, bundle.manifest.labels
    held_out = cut_windows([read_recording(Path(path)) for path in job.held_out], spec, labels)
    own = {name: cut_windows([read_recording(Path(path))], spec, labels) for name, path in job.wearers.items()}
    alone = {name: _trained_accuracy(job, bundle, windows, held_out) for name, windows in own.items()}
    everything = Windows(
        np.concatenate([windows.x for windows in own.values()]), np.concatenate([windows.y for windows in own.values()])
    )
    pooled = _trained_accuracy(job, bundle, everything, held_out)
    return Baselines(alone, pooled, {name: len(windows.y) for name, windows in own.items()})


def _trained_accuracy(job: BaselineJob, bundle: Bundle, windows: Windows, held_out: Windows) -> float:
    schedule = Schedule(
        learning_rate=job.learning_rate,
        momentum=job.momentum,
        proximal_mu=job.proximal_mu,
        batch=job.batch,
        epochs=job.epochs,
        min_examples=1,
        min_steps=1,
        seed=job.seed,
    )
    return float_accuracy(bundle, train(bundle, bundle.parameters, windows, schedule).state, held_out)


def main(arguments: list[str] | None = None) -> int:
    """Read the job's file and write its result."""
    (job_path,) = sys.argv[1:] if arguments is None else arguments
    os.nice(_NICE)
    job = msgspec.json.decode(Path(job_path).read_bytes(), type=BaselineJob)
    write_durable(Path(job.result), msgspec.json.encode(measure(job)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
