"""What a 10M-parameter update costs a device in memory: encode, mask, write and send, above the idle process.

    .venv/bin/python benchmarks/update_memory.py --json

A sealed delta of ten million float32 is encoded, masked for three trustees and written by the real training child
(`bedside.agent.rounds.contribute_child`, on the path where a trustee gave the delta back, so that nothing is trained),
then read and sent in chunks by this process. Counted is what both add: the child's proportional set size (pages that
it shares with the agent count by their share), and this process's growth. Training itself is not part of it: its
memory depends on model and batch, and goes back when the child ends. Peer: Flower's SecAgg+ client stage in a process
of its own, on the same number of parameters, above its own idle size; measured where .venv-flwr is installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
from report import emit, plain_arguments
from secure_sum import ROOT, load_world

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.rounds.contribution import ContributionJob, ContributionOutcome, make_contribution
from bedside.agent.rounds.kept import write_kept
from bedside.agent.rounds.slots import ActiveModel
from bedside.agent.rounds.upload import send_upload
from bedside.agent.training.gates import MachineState
from bedside.agent.training.settings import TrainingConfig
from bedside.agent.training.trainer import Reading, Trainer
from bedside.core.codec import TensorUpdate
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.securesum.plans import layout_message
from bedside.core.signing import parse_strict, sign_message
from bedside.core.signing.envelope import SUITE, digest
from bedside.core.signing.trust import open_credential, subject_of
from bedside.proto.v1 import identity_pb2
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import Offer, OpeningEntry, UploadState
from bedside.service.identity import Identity, Pins, create_identity
from bedside.service.platform import SystemClock, SystemEntropy

MIB = 1 << 20
GOAL_MB = 40.0


class Sink:
    """A coordinator that takes every byte and keeps none."""

    async def begin_upload(self, header: Signed) -> UploadState:
        """Nothing is here yet."""
        return UploadState(received_bytes=0)

    async def upload(self, chunks: Any) -> UploadState:
        """Count and forget."""
        received = 0
        async for chunk in chunks:
            received += len(chunk.data)
        return UploadState(received_bytes=received, accepted=True)


def enrol(world: Any, folder: Path) -> Identity:
    """A real identity directory of a device of the world's first site."""
    identity = create_identity(folder, identity_pb2.ROLE_DEVICE, SystemEntropy())
    site = next(iter(world.sites.values()))
    credential = identity_pb2.Credential(
        suite=SUITE,
        federation="test",
        site=site.name,
        role=identity_pb2.ROLE_DEVICE,
        subject=subject_of(identity_pb2.ROLE_DEVICE, identity.sign_pk),
        sign_pk=identity.sign_pk,
        tls_key_digest=digest(b"tls"),
        issued_at_s=1_800_000_000,
        not_after_s=3_600_000_000,
    )
    signed = sign_message("credential", credential, site.authority)
    pins = Pins(
        federation="test",
        root_pk=bytes(world.root.verify_key).hex(),
        authority_pk=bytes(site.authority.verify_key).hex(),
        ca_digest="c" * 64,
        site=site.name,
        enrolment_address="localhost:1",
    )
    identity.save_pins(pins)
    identity.save_credential(signed)
    site.devices.append(
        type(site.trustee)(identity.signing_key, open_credential(signed, bytes(site.authority.verify_key)))
    )
    return identity


def prepare(folder: Path, words: int) -> ContributionJob:
    """A plan of `words` parameters with its openings, and a sealed delta for it."""
    world = load_world().World({"alder": 2, "birch": 2, "cedar": 2})
    identity = enrol(world, folder / "identity")
    slot = TensorSlot("w", (words,))
    values = Segment("parameters", SegmentKind.VALUE, (slot,), clip_e6=1_000_000, bits=8, rotation_block=1_024)
    layout = Layout((values, Segment("examples", SegmentKind.COUNT, cap=400)))
    plan = world.plan(layout=layout_message(layout))
    openings, _ = world.open_round(plan)
    delta = np.random.default_rng(0).standard_normal(words, dtype=np.float32) / np.float32(words**0.5)
    update = TensorUpdate({"w": delta}, {"examples": 100}, layout)
    write_kept(folder / "freed", load_key_ring(identity.directory).newest, SystemEntropy(), plan, update, examples=100)
    offer = Offer(
        plan=plan.signed,
        openings=[OpeningEntry(opening=one.signed, credential=one.credential.signed) for one in openings],
        rosters=[sign_message("roster", world.roster(site), site.authority) for site in world.sites.values()],
        federation=sign_message("federation", world.federation, world.root),
    )
    return ContributionJob(
        offer=offer.SerializeToString(deterministic=True),
        identity_dir=str(identity.directory),
        state_dir=str(folder),
        model=ActiveModel("", "", ()),
        target=str(folder / "words"),
        kept=str(folder / "kept"),
        freed=str(folder / "freed"),
        sequence=1,
        task="round-bench",
    )


def prepared(words: int, folder: Path) -> ContributionJob:
    """`prepare` in a process of its own, so that its memory is not ours."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        job = prepare(folder, words)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(msgspec.json.encode(job))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return msgspec.json.decode(data, type=ContributionJob)


class Peak(threading.Thread):
    """The largest proportional set size of all children of this process together."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.pss_bytes = 0
        self._done = threading.Event()

    def run(self) -> None:
        """Look every few milliseconds."""
        me = psutil.Process()
        while not self._done.wait(0.004):
            total = 0
            for child in me.children(recursive=True):
                try:
                    total += child.memory_full_info().pss
                except psutil.Error:
                    continue
            self.pss_bytes = max(self.pss_bytes, total)

    def stop(self) -> None:
        """Look no more."""
        self._done.set()
        self.join()


async def contribute(job: ContributionJob) -> ContributionOutcome:
    """Run the child, whatever else this machine does."""
    state = MachineState(None, None, None, None, None, None, 0, frozenset(), None)
    config = TrainingConfig(memory_mib=4_096, timeout_s=120)
    trainer = Trainer(config, Path(job.state_dir), SystemClock(), lambda: Reading(state, 8 << 30))
    return await make_contribution(trainer, job, None)


def run_ours(words: int) -> dict[str, float]:
    """Peak of the child, growth of this process, CPU of the child, and bytes written."""
    with tempfile.TemporaryDirectory() as name:
        job = prepared(words, Path(name))
        before_bytes = psutil.Process().memory_info().rss
        peak = Peak()
        peak.start()
        cpu_before = resource.getrusage(resource.RUSAGE_CHILDREN)
        outcome: ContributionOutcome = asyncio.run(contribute(job))
        cpu_after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert outcome.reused
        header = parse_strict(Signed, outcome.header)
        asyncio.run(send_upload(Sink(), header, Path(job.target), outcome.size_bytes))
        peak.stop()
        grown_bytes = max(0, psutil.Process().memory_info().rss - before_bytes)
        return {
            "child_pss_mb": peak.pss_bytes / MIB,
            "process_growth_mb": grown_bytes / MIB,
            "above_idle_mb": (peak.pss_bytes + grown_bytes) / MIB,
            "child_cpu_s": cpu_after.ru_utime + cpu_after.ru_stime - cpu_before.ru_utime - cpu_before.ru_stime,
            "upload_bytes": float(outcome.size_bytes),
        }


def run_peer(words: int) -> float | str:
    """Megabytes that Flower's masking of as many parameters adds to its own idle process, or why there are none."""
    python = Path(os.environ.get("FLWR_PYTHON", ROOT / ".venv-flwr" / "bin" / "python"))
    if not python.exists():
        return "the peer is not installed: `make bench` makes .venv-flwr, or name its Python in FLWR_PYTHON"
    script = ROOT / "benchmarks" / "peers" / "flower_secagg.py"
    done = subprocess.run([python, script, "3", str(words), "--memory"], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"the peer failed: {done.stderr.strip().splitlines()[-1][:200]}"
    return float(json.loads(done.stdout.splitlines()[-1])["above_idle_mb"])


def main() -> None:
    """Measure and print."""
    parser = plain_arguments(__doc__)
    parser.add_argument("--words", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    runs = [run_ours(asked.words) for _ in range(asked.runs)]
    worst = {name: max(run[name] for run in runs) for name in runs[0]}
    peer = run_peer(asked.words)
    if not asked.json:
        for name, value in worst.items():
            print(f"{name:>20}: {value:,.2f}")
        print(f"{'peer above idle':>20}: {peer if isinstance(peer, str) else f'{peer:,.2f} MB'}")
    figure = {
        "name": "update_10m_above_idle_mb",
        "value": worst["above_idle_mb"],
        "unit": "MiB",
        "ours": worst["above_idle_mb"],
        "peer": "flwr 1.41.0 SecAgg+ client",
        "peer_value": None if isinstance(peer, str) else peer,
        "goal": GOAL_MB,
        "better": "lower",
        "note": peer if isinstance(peer, str) else "worst of the runs; training not included",
    }
    emit("update_memory", asked.runs, [figure], worst)


if __name__ == "__main__":
    main()
