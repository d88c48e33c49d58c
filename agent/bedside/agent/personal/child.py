"""`python -m bedside.agent.personal.child`: tune a suffix on this device's windows, fit a temperature, judge both.

Training sees no window that is held out; the judgement and the temperature see no other. What was tuned is used where
it is not worse than the global model, both in the int8 form in which they serve.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bedside.core.errors import BedsideError, RefusedError
from bedside.ondevice.confinement import (
    confine,
    decode_job,
    heed_stop,
    read_job,
    report_error,
    report_progress,
    report_result,
)

if TYPE_CHECKING:
    from bedside.agent.personal.job import Made, PersonalJob
    from bedside.agent.personal.report import Figures, Report
    from bedside.agent.rounds.models import ModelStore
    from bedside.agent.serving.validation import Validation
    from bedside.agent.training.on_buffer import Device
    from bedside.core.bundle.manifest import Manifest
    from bedside.core.bundle.verify import Bundle
    from bedside.ondevice.runtimes import Float32
    from bedside.ondevice.training.scoring import Truth
    from bedside.ondevice.training.train import Schedule


def main() -> None:
    """Confine this process, do the job on standard input, report."""
    confine(sys.argv[1:])
    try:
        report_result(_run(read_job()))
    except BedsideError as error:
        report_error(error)


def _run(data: bytes) -> Made:
    from msgspec.structs import replace

    from bedside.agent.buffer.keys import load_key_ring
    from bedside.agent.personal.files import Personal, PersonalFiles, facts_of
    from bedside.agent.personal.job import Made, PersonalJob
    from bedside.agent.rounds.models import ModelStore
    from bedside.agent.serving.validation import validation_windows
    from bedside.agent.training.on_buffer import Device
    from bedside.service.platform import SystemClock, SystemEntropy

    stopping = heed_stop()
    job = decode_job(data, PersonalJob)
    state_dir, identity_dir = Path(job.state_dir), Path(job.identity_dir)
    ring, clock, entropy = load_key_ring(identity_dir), SystemClock(), SystemEntropy()
    own = PersonalFiles(state_dir, ring)
    store = ModelStore(state_dir, wish=job.wish, personal=own)
    bundle = store.read_bundle(job.model)
    tuned = _tune(job, store, bundle, Device(state_dir, ring, clock, entropy, stopping))
    found = validation_windows(state_dir, identity_dir, bundle.manifest, job.streams, job.min_judged, job.max_judged)
    judged = _judge(job, store, bundle, tuned, found)
    report = replace(judged.report, at_s=clock.now_ns() // 1_000_000_000)
    sessions = tuned.sessions | (frozenset() if found.too_few else frozenset(found.found.sessions))
    facts = facts_of(bundle.manifest.name, job.model.bundle, sessions, own.read("local", job.model.bundle))
    facts = replace(facts, base=job.model.name, temperature=judged.temperature, report=report)
    own.write_pending(job.task, Personal(facts, tuned.tensors if report.used else {}), entropy)
    return Made(report)


@dataclass(frozen=True, slots=True)
class _Tuned:
    """What was tuned; why nothing was, where `tensors` is empty."""

    tensors: dict[str, Float32]
    windows: int
    sessions: frozenset[str]
    why_not: str = ""


def _tune(job: PersonalJob, store: ModelStore, bundle: Bundle, device: Device) -> _Tuned:
    from bedside.agent.training.on_buffer import Course, train_on_buffer
    from bedside.agent.windows.holdout import HoldOut, Split
    from bedside.proto.v1.identity_pb2 import Role
    from bedside.service.identity import open_identity

    if not job.rules.fine_tune:
        return _Tuned({}, 0, frozenset(), "fine_tune is off in agent.toml")
    schedule = _schedule(job, bundle)
    secret = open_identity(Path(job.identity_dir), Role.ROLE_DEVICE).device_secret
    course = Course(
        job.task,
        b"personal",
        bundle,
        store.parameters(job.model, bundle),
        schedule,
        job.rules.max_windows,
        job.streams,
        split=Split(HoldOut(secret, bundle.manifest.window), "training"),
    )
    try:
        learnt = train_on_buffer(course, device, job.budget, report_progress)
    except RefusedError as error:
        if error.code == "diverged":
            return _Tuned({}, 0, frozenset(), error.sentence)
        if error.code != "too-few-examples":
            raise
        return _Tuned({}, 0, frozenset(), f"fewer labelled windows than the {job.rules.min_windows} that are wanted")
    state = learnt.trained.state
    tensors = {spec.name: state[spec.name] for spec in bundle.manifest.changed(schedule.suffix)}
    return _Tuned(tensors, learnt.trained.counts.examples, learnt.sessions)


def _schedule(job: PersonalJob, bundle: Bundle) -> Schedule:
    """How to tune: as the author recommends, but for what agent.toml says; the same after a pause."""
    from bedside.ondevice.training.train import Schedule

    rules, training = job.rules, bundle.manifest.training
    seed = int.from_bytes(bundle.digest[:8], "big")
    graphs = [graph for graph in bundle.manifest.graphs if graph.suffix == rules.suffix]
    if not graphs:
        raise RefusedError(
            "no-such-graph",
            f"the bundle has no training graph for the suffix {rules.suffix}",
            remedy="have its author build it with that graph, or name another suffix in [personal] of agent.toml",
        )
    graph = min(graphs, key=lambda one: (("Q1", "Q0", "Q2").index(one.level), one.optimiser != "sgd"))
    return Schedule(
        learning_rate=rules.learning_rate or training.learning_rate,
        momentum=training.momentum,
        proximal_mu=training.proximal_mu,
        batch=training.batch,
        epochs=rules.epochs,
        min_examples=rules.min_windows,
        min_steps=1,
        seed=seed,
        gradient_clip=training.gradient_clip,
        level=graph.level,
        suffix=graph.suffix,
        optimiser=graph.optimiser,
        noise_seed=seed,
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    report: Report
    temperature: float = 1.0


def _judge(job: PersonalJob, store: ModelStore, bundle: Bundle, tuned: _Tuned, found: Validation) -> _Judged:
    """Global against tuned, and a temperature for the better one."""
    from bedside.agent.personal.report import Report
    from bedside.agent.serving.paired import score_of
    from bedside.agent.serving.validation import said_by
    from bedside.ondevice.calibration import fit_temperature

    if found.too_few:
        return _Judged(Report(at_s=0, sentence=f"nothing personal is used: {found.too_few}"))
    manifest, x, y = bundle.manifest, found.found.x, found.found.y
    state = store.parameters(job.model, bundle)
    said = said_by(store.opened(job.model, bundle, state).model, x)
    of_all, mine, used = _figures(manifest, said, y), None, False
    if tuned.tensors and (why_not := _diverged(tuned)):
        tuned = _Tuned({}, tuned.windows, tuned.sessions, why_not)
    if tuned.tensors:
        its = said_by(store.opened(job.model, bundle, state | tuned.tensors).model, x)
        mine = _figures(manifest, its, y)
        used = (mine.score, -mine.loss) >= (of_all.score, -of_all.loss)
        said = its if used else said
    temperature = fit_temperature(manifest.task, said, y) if job.rules.temperature else 1.0
    name = score_of(manifest).name
    told = f"on {len(y)} validation windows {found.of}"
    if mine is None:
        sentence = f"nothing was tuned: {tuned.why_not}"
    else:
        better = "not worse" if used else "worse"
        sentence = f"tuned {name} {mine.score:.3f} against {of_all.score:.3f} {told}: {better}"
    report = Report(
        at_s=0,
        sentence=sentence,
        score=name,
        windows=len(y),
        sessions=len(set(found.found.sessions)),
        trained_windows=tuned.windows,
        suffix=job.rules.suffix if tuned.tensors else "",
        of_all=of_all,
        tuned=mine,
        serves=_figures(manifest, said, y, temperature),
        used=used,
    )
    return _Judged(report, temperature)


def _diverged(tuned: _Tuned) -> str:
    """Why what was tuned is no model; empty where it is."""
    import numpy as np

    finite = all(np.isfinite(array).all() for array in tuned.tensors.values())
    return "" if finite else "its training diverged; a smaller learning_rate may help"


def _figures(manifest: Manifest, logits: Float32, y: Truth, temperature: float = 1.0) -> Figures:
    from bedside.agent.personal.report import Figures
    from bedside.agent.serving.paired import score_of
    from bedside.ondevice.calibration import calibration_error
    from bedside.ondevice.heads import Head
    from bedside.ondevice.training.scoring import new_score

    score = new_score(manifest)
    score.add(logits / temperature if temperature != 1.0 else logits, y)
    ece = calibration_error(manifest.task, Head.of(manifest, temperature).answers(logits), y)
    return Figures(float(score_of(manifest).of(logits, y).mean()), score.loss_sum / score.examples, ece)


if __name__ == "__main__":
    main()
