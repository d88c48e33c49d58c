"""`python trains.py BUNDLE OUT`: train as the agent trains until SIGTERM, and write how many steps that were.

A line on standard output says that the first epoch is over.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

import msgspec
from nacl.signing import SigningKey

from bedside.agent.training.budget import Budget
from bedside.agent.training.gates import MachineState
from bedside.agent.training.job import Job
from bedside.agent.training.settings import TrainingConfig
from bedside.agent.training.trainer import CHILD, Reading, Trainer
from bedside.authoring.golden import synthetic_windows
from bedside.core.bundle.tensors import encode_tensors
from bedside.core.bundle.verify import verify_archive
from bedside.ondevice.training.train import Schedule
from bedside.service.platform import SystemClock

_BLIND = MachineState(None, None, None, None, None, None, 0, frozenset(), None)
_WINDOWS = 2_048
_BATCH = 32


async def _train(bundle: Path, signer_pk: str, folder: Path, told: list[int]) -> None:
    """A child after another; each epoch adds its steps to `told`."""
    made = verify_archive(bundle.read_bytes(), [bytes.fromhex(signer_pk)]).manifest
    x, y = synthetic_windows((made.window.length, made.window.channels), len(made.labels), _WINDOWS, seed=5)
    (folder / "examples").write_bytes(encode_tensors({"x": x, "y": y}))
    schedule = Schedule(0.01, 0.9, 0.0, batch=_BATCH, epochs=50, min_examples=1, min_steps=1, seed=1)
    job = Job(str(bundle), (signer_pk,), schedule, examples=str(folder / "examples"))
    trainer = Trainer(TrainingConfig(), folder, SystemClock(), lambda: Reading(_BLIND, 8 << 30))

    def with_budget(budget: Budget) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(job, budget=budget))

    def note(_: bytes) -> None:
        if not told:
            print("trains", flush=True)
        told.append(_WINDOWS // _BATCH)

    while True:
        await trainer.run("bench", CHILD, with_budget, on_progress=note)


async def _until_terminated(bundle: Path, out: Path) -> None:
    signer_pk = bytes(SigningKey(b"the author of benchmarks' bundle").verify_key).hex()
    told: list[int] = []
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        training = asyncio.create_task(_train(bundle, signer_pk, Path(name), told))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, training.cancel)
        await asyncio.wait([training])
        if not training.cancelled():
            training.result()  # what it failed with
    out.write_text(json.dumps({"steps": sum(told)}))


def main() -> None:
    """Train until terminated."""
    asyncio.run(_until_terminated(Path(sys.argv[1]), Path(sys.argv[2])))


if __name__ == "__main__":
    main()
