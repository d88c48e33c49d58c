"""`python -m bedside.agent.serving.gate_child`: the serving model and its candidate on windows that are held out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from bedside.core.errors import BedsideError
from bedside.ondevice.confinement import confine, decode_job, read_job, report_error, report_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bedside.agent.inference.model import Model
    from bedside.agent.rounds.models import ModelStore
    from bedside.agent.serving.gate import GateJob, Judged
    from bedside.agent.windows.holdout import HoldOut
    from bedside.agent.windows.holdout import Role as WindowRole
    from bedside.agent.windows.training import TrainingSet
    from bedside.core.bundle.manifest import Manifest
    from bedside.ondevice.runtimes import Float32

_BATCH: Final = 256


def main() -> None:
    """Confine this process, do the job on standard input, report."""
    confine(sys.argv[1:])
    try:
        report_result(_run(read_job()))
    except BedsideError as error:
        report_error(error)


class _Validation(NamedTuple):
    """Windows, the independent stretch that each belongs to, and in words what they are."""

    found: TrainingSet
    blocks: Sequence[object]
    of: str


def _run(data: bytes) -> Judged:
    from bedside.agent.inference.model import BAD_ANSWER
    from bedside.agent.rounds.models import ModelStore
    from bedside.agent.serving.gate import GateJob, Judged
    from bedside.core.errors import MalformedError
    from bedside.ondevice.replay import golden_windows

    job = decode_job(data, GateJob)
    store = ModelStore(Path(job.state_dir), wish=job.wish)
    bundle = store.read_bundle(job.new)
    candidate = store.load(job.new).model
    try:
        candidate.answers(golden_windows(bundle))
        return _compared(job, store, bundle.manifest, candidate)
    except MalformedError as error:
        if error.code != BAD_ANSWER:
            raise
        return Judged("refused", "it answers windows with what is no number")


def _compared(job: GateJob, store: ModelStore, manifest: Manifest, candidate: Model) -> Judged:
    from bedside.agent.serving.gate import Judged
    from bedside.agent.serving.paired import MIN_BLOCKS, compare, score_of

    try:
        serving = store.read_bundle(job.old).manifest
        old = store.load(job.old).model
        if not _comparable(serving, manifest):
            return Judged("not-judged", "it takes other windows, or answers something else, than the model that serves")
        validation = _validation(job, manifest)
        found = validation.found
        blocks = validation.blocks
        windows, stretches = len(blocks), len(set(blocks))
        if windows < job.min_windows or stretches < MIN_BLOCKS:
            return Judged("not-judged", f"{windows} validation windows in {stretches} separate stretches are too few")
        said = _said(old, found.x)
    except BedsideError as error:
        return Judged("not-judged", f"there is nothing to compare it with: {error.sentence}")
    score = score_of(manifest)
    pair = compare(score.of(said, found.y), score.of(_said(candidate, found.x), found.y), blocks)
    worse = pair.surely_worse > job.margin
    told = f"{score.name} {pair.new:.3f} against {pair.old:.3f} on {windows} validation windows {validation.of}"
    sentence = f"{told}: {'surely' if worse else 'not surely'} worse by more than {job.margin:g}"
    return Judged("refused" if worse else "passed", sentence, score.name, windows, pair.old, pair.new)


def _comparable(one: Manifest, other: Manifest) -> bool:
    """Whether two models are asked the same, whatever their stream is called."""
    from msgspec.structs import replace

    from bedside.ondevice.windows.targets import Question

    first, second = (
        Question.of(replace(manifest, window=replace(manifest.window, stream=""))) for manifest in (one, other)
    )
    return first == second


def _validation(job: GateJob, manifest: Manifest) -> _Validation:
    """Windows of whole sessions; where these are too few, also those of blocks of time within the others."""
    import numpy as np

    from bedside.agent.serving.paired import MIN_BLOCKS
    from bedside.agent.windows.holdout import HoldOut
    from bedside.agent.windows.training import TrainingSet
    from bedside.proto.v1.identity_pb2 import Role
    from bedside.service.identity import open_identity

    secret = open_identity(Path(job.identity_dir), Role.ROLE_DEVICE).device_secret
    hold_out = HoldOut(secret, manifest.window)
    whole = _collect(job, manifest, hold_out, "session", job.max_windows)
    if len(whole.y) >= job.min_windows and len(set(whole.sessions)) >= MIN_BLOCKS:
        return _Validation(whole, whole.sessions, "of whole sessions")
    part = _collect(job, manifest, hold_out, "block", job.max_windows - len(whole.y))
    both = TrainingSet(
        np.concatenate([whole.x, part.x]),
        np.concatenate([whole.y, part.y]),
        whole.sessions + part.sessions,
        np.concatenate([whole.start_ns, part.start_ns]),
    )
    places = zip(both.sessions, both.start_ns, strict=True)
    blocks = [(session, int(start_ns) // hold_out.block_ns) for session, start_ns in places]
    return _Validation(both, blocks, "(with blocks of time of sessions that are trained on)")


def _collect(job: GateJob, manifest: Manifest, hold_out: HoldOut, role: WindowRole, most: int) -> TrainingSet:
    from bedside.agent.buffer.keys import load_key_ring
    from bedside.agent.config import BUFFER_NAME
    from bedside.agent.windows.holdout import Split
    from bedside.agent.windows.training import collect
    from bedside.ondevice.windows.targets import Question

    return collect(
        Path(job.state_dir) / BUFFER_NAME,
        load_key_ring(Path(job.identity_dir)),
        Question.of(manifest),
        max_windows=most,
        streams=job.streams,
        split=Split(hold_out, role),
    )


def _said(model: Model, x: Float32) -> Float32:
    import numpy as np

    return np.concatenate([model.logits(x[at : at + _BATCH]) for at in range(0, len(x), _BATCH)])


if __name__ == "__main__":
    main()
