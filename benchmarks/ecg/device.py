"""A real agent process that replays records as streams of one model, and what is in its buffer afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Prediction
from bedside.agent.config import BUFFER_NAME, load_agent_config
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.slots import Origin
from bedside.core.ids import StreamId
from bedside.firmware_bridge.recording import Recording, write_recording
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.files import write_durable
from bedside.service.identity import create_identity
from bedside.service.platform import SystemEntropy
from bedside.service.policy_file import read_policy

START_NS = 1_700_000_000_000_000_000
BUNDLE = "ecg.tar"
_SOURCE = """
[[sources]]
kind = "replay"
name = "{name}"
[sources.options]
stream = "{name}"
data = "{name}.npz"
speed = {speed}
start_ns = {start_ns}
"""


@dataclass(frozen=True)
class Replayed:
    """One stream afterwards.

    Attributes:
        values: every stored sample, (samples, channels), in the order of time.
        stretches: gap-free runs; 1 when nothing is missing.
        predictions: in the order in which they were made.
    """

    values: npt.NDArray[np.int16]
    stretches: int
    predictions: list[Prediction]


def make_device(
    folder: Path,
    recordings: Mapping[str, Recording],
    tar: bytes,
    signer_pk: bytes,
    speed: float,
    checkpoint: bytes = b"",
) -> None:
    """A device's directory: identity, policy, one source per recording, and one model that reads all of them.

    Args:
        folder: new.
        recordings: by the name of their stream.
        tar: the bundle.
        signer_pk: its author's key.
        speed: times real time.
        checkpoint: trained parameters as a round's result would bring them; empty for the bundle's own.
    """
    folder.mkdir()
    create_identity(folder / "state" / "identity", Role.ROLE_DEVICE, SystemEntropy())
    (folder / BUNDLE).write_bytes(tar)
    (folder / "policy.toml").write_text(f'[bundle_signers]\nauthor = "{signer_pk.hex()}"\n')
    streams = ", ".join(f'"{name}"' for name in recordings)
    text = f'[link]\nenabled = false\n[[models]]\nbundle = "{BUNDLE}"\nstreams = [{streams}]\n'
    for name, recording in recordings.items():
        write_recording(folder / f"{name}.npz", recording)
        text += _SOURCE.format(name=name, speed=float(speed), start_ns=START_NS)
    (folder / "agent.toml").write_text(text)
    if checkpoint:
        _install(folder, checkpoint)


def run_device(folder: Path, recordings: Mapping[str, Recording], deadline_s: float) -> tuple[float, float]:
    """Run the agent until every sample is stored; return the wall seconds since it was up, and its CPU seconds.

    Raises:
        RuntimeError: it ended by itself, or was not done in time; with its log.
    """
    command = [sys.executable, "-m", "bedside.service", "agent", "run", str(folder)]
    log = folder / "log.txt"
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
    began_s = time.monotonic()
    up_s: float | None = None
    try:
        while not _all_stored(folder, recordings):
            if up_s is None and (folder / "run" / "agent.sock").is_socket():
                up_s = time.monotonic()
            if process.poll() is not None or time.monotonic() - began_s > deadline_s:
                raise RuntimeError(log.read_text()[-4_000:])
            time.sleep(0.2)
        wall_s = time.monotonic() - (began_s if up_s is None else up_s)
        process.send_signal(signal.SIGTERM)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return wall_s, usage.ru_utime + usage.ru_stime
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def read_device(folder: Path, name: str) -> Replayed:
    """What is stored of one stream."""
    with closing(_reader(folder)) as reader:
        stretches = [
            stretch
            for session in reader.sessions(StreamId(name))
            for stretch in reader.read_range(StreamId(name), session.session)
        ]
        predictions = reader.predictions(limit=1_000_000, stream=StreamId(name))
    values = np.concatenate([stretch.values for stretch in stretches])
    return Replayed(values.astype(np.int16, casting="no"), len(stretches), predictions)


def _install(folder: Path, checkpoint: bytes) -> None:
    """Note the bundle with a checkpoint as what serves, as the agent does after a round."""
    models = ModelStore(folder / "state")
    accepted = asyncio.run(models.accept_file(folder / BUNDLE, read_policy(folder / "policy.toml").policy))
    name = hashlib.blake2b(checkpoint, digest_size=32).hexdigest()
    write_durable(models.checkpoint_path(name), checkpoint)
    file = hashlib.blake2b((folder / BUNDLE).read_bytes(), digest_size=32).hexdigest()
    origin = Origin(load_agent_config(folder).models[0].bundle, file)
    models.activate("ecg", type(accepted)(accepted.bundle, name, accepted.signer_pks), origin)


def _all_stored(folder: Path, recordings: Mapping[str, Recording]) -> bool:
    """Whether the last sample of every stream lies in the buffer."""
    if not (folder / "run" / "agent.sock").is_socket():
        return False
    with closing(_reader(folder)) as reader:
        for name, recording in recordings.items():
            last_ns = START_NS + int((len(recording.values) - 1) / recording.rate_hz * 1e9)
            parts = [
                part
                for session in reader.sessions(StreamId(name))
                for part in reader.parts(StreamId(name), session.session, last_ns - 2 * 10**9)
            ]
            stored = max((part.start_ns + len(part.values) / part.rate_hz * 1e9 for part in parts), default=0)
            if stored < last_ns:
                return False
    return True


def _reader(folder: Path) -> BufferReader:
    return BufferReader(folder / "state" / BUFFER_NAME, load_key_ring(folder / "state" / "identity"))
