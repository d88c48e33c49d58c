"""`python trains.py BUNDLE SECONDS OUT`: train as the agent trains, a child after another, and write what that took."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from nacl.signing import SigningKey

from bedside.agent.training.budget import Budget
from bedside.agent.training.gates import MachineState
from bedside.agent.training.job import Job, Outcome
from bedside.agent.training.settings import TrainingConfig
from bedside.agent.training.trainer import CHILD, Reading, Trainer
from bedside.authoring.golden import synthetic_windows
from bedside.core.bundle.tensors import encode_tensors
from bedside.core.bundle.verify import verify_archive
from bedside.ondevice.confinement import read_outcome
from bedside.ondevice.training.train import Schedule
from bedside.service.platform import SystemClock

_BLIND = MachineState(None, None, None, None, None, None, 0, frozenset(), None)
_WINDOWS = 2_048


async def _train(bundle: Path, signer_pk: str, seconds: float, folder: Path) -> int:
    made = verify_archive(bundle.read_bytes(), [bytes.fromhex(signer_pk)]).manifest
    x, y = synthetic_windows((made.window.length, made.window.channels), len(made.labels), _WINDOWS, seed=5)
    (folder / "examples").write_bytes(encode_tensors({"x": x, "y": y}))
    schedule = Schedule(0.01, 0.9, 0.0, batch=32, epochs=5, min_examples=1, min_steps=1, seed=1)
    job = Job(str(bundle), (signer_pk,), schedule, examples=str(folder / "examples"))
    trainer = Trainer(TrainingConfig(), folder, SystemClock(), lambda: Reading(_BLIND, 8 << 30))

    def with_budget(budget: Budget) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(job, budget=budget))

    steps, ends_s = 0, time.monotonic() + seconds
    while time.monotonic() < ends_s:
        steps += read_outcome(await trainer.run("bench", CHILD, with_budget), Outcome).counts.steps
    return steps


def main() -> None:
    """Train for so many seconds."""
    bundle, seconds, out = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    signer_pk = bytes(SigningKey(b"the author of benchmarks' bundle").verify_key).hex()
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        steps = asyncio.run(_train(bundle, signer_pk, seconds, Path(name)))
    out.write_text(json.dumps({"steps": steps}))


if __name__ == "__main__":
    main()
