"""`python -m bedside.agent.personal.statistics_child`: local statistics from this device's windows, labelled or not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bedside.core.errors import BedsideError, RefusedError
from bedside.ondevice.confinement import confine, decode_job, read_job, report_error, report_result

if TYPE_CHECKING:
    from bedside.agent.buffer.keys import KeyRing
    from bedside.agent.personal.job import Counted, StatisticsJob
    from bedside.agent.windows.holdout import HoldOut
    from bedside.core.bundle.manifest import WindowSpec
    from bedside.ondevice.runtimes import Float32

TOO_FEW = "too-few-windows"


def main() -> None:
    """Confine this process, do the job on standard input, report."""
    confine(sys.argv[1:])
    try:
        report_result(_run(read_job()))
    except BedsideError as error:
        report_error(error)


def _run(data: bytes) -> Counted:
    from bedside.agent.buffer.keys import load_key_ring
    from bedside.agent.personal.files import Personal, PersonalFiles, facts_of
    from bedside.agent.personal.job import Counted, StatisticsJob
    from bedside.agent.rounds.models import ModelStore
    from bedside.agent.windows.holdout import HoldOut
    from bedside.ondevice.training.statistics import MIN_WINDOWS, own_statistics
    from bedside.proto.v1.identity_pb2 import Role
    from bedside.service.identity import open_identity
    from bedside.service.platform import SystemEntropy

    job = decode_job(data, StatisticsJob)
    state_dir, ring = Path(job.state_dir), load_key_ring(Path(job.identity_dir))
    own = PersonalFiles(state_dir, ring)
    store = ModelStore(state_dir, personal=own)
    bundle = store.read_bundle(job.model)
    window = bundle.manifest.window
    secret = open_identity(Path(job.identity_dir), Role.ROLE_DEVICE).device_secret
    x, sessions = _windows(job, ring, window, HoldOut(secret, window))
    if len(x) < MIN_WINDOWS:
        raise RefusedError(
            TOO_FEW,
            f"{len(x)} windows are too few for statistics of this device's own; {MIN_WINDOWS} are wanted",
            remedy="they are made by themselves when more signal is stored",
        )
    before = own.read("local", job.model.bundle)
    kept = dict(before.tensors) if before is not None else {}
    kept |= own_statistics(bundle, store.parameters(job.model, bundle), x)
    facts = facts_of(bundle.manifest.name, job.model.bundle, sessions, before)
    own.write_pending(job.task, Personal(facts, kept), SystemEntropy())
    return Counted(len(x))


def _windows(job: StatisticsJob, ring: KeyRing, window: WindowSpec, hold_out: HoldOut) -> tuple[Float32, set[str]]:
    """The newest windows that may be trained on, of sessions with consent, and the sessions that they are of."""
    from contextlib import closing
    from itertools import chain

    import numpy as np

    from bedside.agent.buffer.reader import BufferReader
    from bedside.agent.config import BUFFER_NAME
    from bedside.agent.windows.holdout import Split
    from bedside.agent.windows.stored import stored_windows_of, windows_of

    split, streams = Split(hold_out, "training"), job.streams or (window.stream,)
    found: list[Float32] = []
    sessions: set[str] = set()
    with closing(BufferReader(Path(job.state_dir) / BUFFER_NAME, ring)) as reader:
        for session in reversed(reader.sessions()):
            if len(found) >= job.max_windows:
                break
            if session.stream not in streams or not session.consent_training or not split.may_have(session.session):
                continue
            for one in chain(stored_windows_of(reader, session, window), windows_of(reader, session, window)):
                if len(found) < job.max_windows and split.has(one.session, one.start_ns, one.end_ns):
                    found.append(one.values)
                    sessions.add(one.session)
    shape = (len(found), window.length, window.channels)
    return np.array(found, np.float32).reshape(shape), sessions


if __name__ == "__main__":
    main()
