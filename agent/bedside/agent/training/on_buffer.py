"""In a training child: train on this device's own windows, from where an earlier child stopped if there was one.

Windows are those that there were when the training began, by the labels of that time: what comes or is labelled during
a pause changes nothing. What does change them (an erasure, a withdrawn label, what has expired) makes it begin again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bedside.agent.buffer.keys import KeyRing
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.config import BUFFER_NAME
from bedside.agent.training.budget import Budget, check_memory
from bedside.agent.training.saved import SavedTraining, state_path
from bedside.agent.training.sitting import Sitting
from bedside.agent.windows.holdout import Split
from bedside.agent.windows.room import Aside, Room
from bedside.agent.windows.training import Horizon, LabelledWindows, Wanted, gather
from bedside.core.bundle.verify import Bundle
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import RefusedError
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.train import Progress, Schedule, Trained, chosen_graph, train
from bedside.ondevice.windows.targets import Question


@dataclass(frozen=True, slots=True)
class Course:
    """One training.

    Attributes:
        task: names the file of an unfinished one (`bedside.agent.training.saved.state_path`).
        basis: what else it depends on, such as a plan's digest.
        bundle: the model.
        start: parameters to begin with.
        schedule: how to train.
        max_windows: newest labelled windows at most.
        streams: that the model reads; empty for the one that its manifest names.
        min_sessions: that the windows must come from.
        split: which windows; None for all of them, also those that are held out.
    """

    task: str
    basis: bytes
    bundle: Bundle
    start: Mapping[str, Float32]
    schedule: Schedule
    max_windows: int
    streams: tuple[str, ...] = ()
    min_sessions: int = 0
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """What a training child has of its device.

    Attributes:
        state_dir: the buffer, and unfinished trainings.
        ring: the buffer's keys.
        clock: for the time that it takes.
        entropy: for seals.
        stopping: whether somebody asked this process to stop.
    """

    state_dir: Path
    ring: KeyRing
    clock: Clock
    entropy: Entropy
    stopping: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What came of a training, the sessions that it was learnt from, and how many windows had too strange a value."""

    trained: Trained
    sessions: frozenset[str]
    far: int = 0


def train_on_buffer(
    course: Course, device: Device, budget: Budget, on_progress: Callable[[Progress], None] = lambda _: None
) -> Learnt:
    """Train, or go on training.

    Raises:
        RefusedError: `too-few-sessions`, `too-few-examples`, `no-such-graph`, `unaffordable-memory`,
            `unaffordable-time`, `diverged`.
        MalformedError: `bad-examples`, `bad-graph`.
        StoreError: from the buffer; `room-write`, `file-write`.
        UnavailableError: `child-stopped`: the next call goes on; `child-timeout`.
    """
    file = SavedTraining(state_path(device.state_dir, course.task), device.ring.newest)
    facts = file.facts()
    horizon = Horizon(facts.last_label, facts.until_ns) if facts is not None else _horizon(device)
    examples = _gather(course, device, budget, horizon)
    fit = fit_of(course, examples)
    if facts is not None and facts.fit != fit:
        examples.close()
        horizon = _horizon(device)
        examples = _gather(course, device, budget, horizon)
        fit = fit_of(course, examples)
    with closing(examples):
        check_course(course, examples, budget)
        sitting = Sitting(
            file,
            budget,
            device.clock,
            device.entropy,
            device.stopping,
            fit=fit,
            horizon=Horizon(horizon.last_label, examples.until_ns),
        )
        trained = train(
            course.bundle,
            course.start,
            examples,
            course.schedule,
            lambda progress: on_progress(msgspec.structs.replace(progress, unsaved=sitting.unsaved)),
            saved=sitting.resume(),
            between=sitting.between,
        )
        return Learnt(trained, frozenset(examples.sessions), examples.far)


def check_course(course: Course, examples: LabelledWindows, budget: Budget) -> None:
    """Refuse what need not be begun.

    Raises:
        RefusedError: `too-few-sessions`, `no-such-graph`, `unaffordable-memory`.
    """
    if len(set(examples.sessions)) < course.min_sessions:
        raise RefusedError(
            "too-few-sessions",
            f"fewer labelled sessions are here than the {course.min_sessions} that the plan wants",
            remedy="the device takes part by itself when more sessions are labelled",
        )
    manifest, graph = course.bundle.manifest, chosen_graph(course.bundle, course.schedule)
    window_bytes = 4 * manifest.window.length * manifest.window.channels
    check_memory(manifest.cost(graph, course.schedule.batch), budget, len(examples) * window_bytes)


def fit_of(course: Course, examples: LabelledWindows) -> bytes:
    """Digest of everything that the outcome depends on."""
    digest = hashlib.blake2b(digest_size=32)
    for part in (course.task.encode(), course.basis, course.bundle.digest, msgspec.json.encode(course.schedule)):
        digest.update(len(part).to_bytes(8, "little") + part)
    for name, tensor in sorted(course.start.items()):
        digest.update(name.encode() + tensor.tobytes())
    digest.update(examples.digest)
    return digest.digest()


def _horizon(device: Device) -> Horizon:
    with closing(BufferReader(device.state_dir / BUFFER_NAME, device.ring)) as reader:
        return Horizon(reader.last_label())


def _gather(course: Course, device: Device, budget: Budget, horizon: Horizon) -> LabelledWindows:
    manifest = course.bundle.manifest
    window = manifest.window
    wanted = Wanted(
        Question.of(manifest), course.max_windows, streams=course.streams, split=course.split, horizon=horizon
    )
    aside = Aside(budget.examples_bytes, device.state_dir, device.entropy)
    room = Room((window.length, window.channels), aside)
    return gather(device.state_dir / BUFFER_NAME, device.ring, wanted, room)
