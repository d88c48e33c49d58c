"""`python -m bedside.agent.serving.gate_child`: the serving model and its candidate on windows that are held out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bedside.core.errors import BedsideError
from bedside.ondevice.confinement import confine, decode_job, read_job, report_error, report_progress, report_result

if TYPE_CHECKING:
    from bedside.agent.inference.model import Model
    from bedside.agent.rounds.models import ModelStore
    from bedside.agent.serving.gate import GateJob, Judged
    from bedside.core.bundle.manifest import Manifest


def main() -> None:
    """Confine this process, do the job on standard input, report."""
    confine(sys.argv[1:])
    try:
        report_result(_run(read_job()))
    except BedsideError as error:
        report_error(error)


def _run(data: bytes) -> Judged:
    from bedside.agent.buffer.keys import load_key_ring
    from bedside.agent.inference.model import BAD_ANSWER
    from bedside.agent.personal.files import PersonalFiles
    from bedside.agent.rounds.models import ModelStore
    from bedside.agent.serving.gate import GateJob, Judged
    from bedside.core.errors import MalformedError
    from bedside.ondevice.replay import golden_windows

    job = decode_job(data, GateJob)
    own = PersonalFiles(Path(job.state_dir), load_key_ring(Path(job.identity_dir)))
    store = ModelStore(Path(job.state_dir), wish=job.wish, personal=own)
    bundle = store.read_bundle(job.new)
    candidate = store.load(job.new).model
    try:
        candidate.answers(golden_windows(bundle))
        report_progress("golden")
        return _compared(job, store, bundle.manifest, candidate)
    except MalformedError as error:
        if error.code != BAD_ANSWER:
            raise
        return Judged("refused", "it answers windows with what is no number")


def _compared(job: GateJob, store: ModelStore, manifest: Manifest, candidate: Model) -> Judged:
    from bedside.agent.serving.gate import Judged
    from bedside.agent.serving.paired import compare, score_of
    from bedside.agent.serving.validation import said_by, validation_windows

    try:
        serving = store.read_bundle(job.old).manifest
        old = store.load(job.old).model
        comparable = _comparable(serving, manifest)
        asked = manifest if comparable else serving
        window_bytes = 4 * asked.window.length * asked.window.channels
        most = max(job.min_windows, min(job.max_windows, job.max_bytes // window_bytes))
        validation = validation_windows(
            Path(job.state_dir), Path(job.identity_dir), asked, job.streams, job.min_windows, most
        )
        found, blocks = validation.found, validation.blocks
        if validation.too_few:
            return Judged("not-judged", validation.too_few, windows=len(blocks))
        if not comparable:
            return Judged("uncompared", "it takes other windows, or answers something else, than the model that serves")
        said = said_by(old, found.x)
    except BedsideError as error:
        return Judged("not-judged", f"there is nothing to compare it with: {error.sentence}")
    score = score_of(manifest)
    pair = compare(score.of(said, found.y), score.of(said_by(candidate, found.x), found.y), blocks)
    worse = pair.surely_worse > job.margin
    told = f"{score.name} {pair.new:.3f} against {pair.old:.3f} on {len(blocks)} validation windows {validation.of}"
    sentence = f"{told}: {'surely' if worse else 'not surely'} worse by more than {job.margin:g}"
    return Judged("refused" if worse else "passed", sentence, score.name, len(blocks), pair.old, pair.new)


def _comparable(one: Manifest, other: Manifest) -> bool:
    """Whether two models are asked the same, whatever their stream is called."""
    from msgspec.structs import replace

    from bedside.ondevice.windows.targets import Question

    first, second = (
        Question.of(replace(manifest, window=replace(manifest.window, stream=""))) for manifest in (one, other)
    )
    return first == second


if __name__ == "__main__":
    main()
