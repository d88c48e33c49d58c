"""Training examples from the buffer: the windows that inference saw, joined with labels by time.

Those of expired signal come from the store, the others are cut from what is left; a window comes from one of the two.
What does not fit into memory is put aside (`room.py`), so that a device trains on more than it can hold.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.agent.buffer.keys import Keys
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Session
from bedside.agent.buffer.schema import LAST_NS
from bedside.agent.windows.holdout import Split
from bedside.agent.windows.room import Room
from bedside.agent.windows.stored import stored_windows_of, windows_of
from bedside.core.ids import SessionId
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.scoring import Truth
from bedside.ondevice.windows.cutter import Window
from bedside.ondevice.windows.labelling import MIN_COVER
from bedside.ondevice.windows.targets import Answer, Answers, Question

Int64 = npt.NDArray[np.int64]


_TAG_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Horizon:
    """What had come by some time.

    Attributes:
        last_label: number of the newest label.
        until_ns: end of the newest window, ns since 1970.
    """

    last_label: int = LAST_NS
    until_ns: int = LAST_NS


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Labelled windows in memory, in the order of their sessions and time.

    Attributes:
        x: shape (windows, length, channels), float32, normalised.
        y: as of `LabelledWindows`.
        sessions: likewise.
        start_ns: likewise.
    """

    x: Float32
    y: Truth
    sessions: list[SessionId]
    start_ns: Int64


class LabelledWindows:
    """Labelled windows in the order of their sessions and time; these are `Examples`.

    Attributes:
        y: what they are examples of: (windows,) int64, index into the labels asked for; of several labels or a
            regression (windows, outputs) float32, see `targets`.
        sessions: the session of each window, for splits by session.
        start_ns: shape (windows,), int64.
        until_ns: end of the newest window; 0 without any.
        far: windows that were left out, because a label's value is far outside of its target's scale.
        digest: of every window with its session, time and answer: another set has another digest.
    """

    def __init__(self, room: Room, places: Int64, notes: Notes) -> None:
        self._room = room
        self._places = places
        self.y: Truth = notes.truth()[places]
        self.start_ns: Int64 = np.array(notes.start_ns, np.int64)[places]
        self.until_ns = notes.until_ns
        self.far = notes.far
        self.sessions = [notes.sessions[place] for place in places]
        tags = np.frombuffer(notes.tags, np.uint8).reshape(-1, _TAG_BYTES)
        self.digest = hashlib.blake2b(tags[places].tobytes(), digest_size=32).digest()

    def __len__(self) -> int:
        return len(self._places)

    def take(self, picked: Int64) -> tuple[Float32, Truth]:
        """Windows (N, L, C) normalised of these numbers, in their order, and their answers.

        Raises:
            StoreError: `room-read`.
        """
        return self._room.take(self._places[picked].tolist()), self.y[picked]

    def close(self) -> None:
        """Give memory and disk back."""
        self._room.close()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which windows: the newest whose answer is known.

    Attributes:
        question: stream, window and normalisation, and the outputs; windows with another label are left out.
        max_windows: so many at most.
        consent_only: leave out sessions without consent for training.
        min_cover: share of a window that labels must cover.
        streams: those that the model is bound to; empty for the one that the spec names.
        split: which windows; None for all of them, also those that are held out.
        horizon: leaves out what came later.
    """

    question: Question
    max_windows: int
    consent_only: bool = True
    min_cover: float = MIN_COVER
    streams: Sequence[str] = ()
    split: Split | None = None
    horizon: Horizon = Horizon()


def collect(
    database_path: Path,
    keys: Keys,
    question: Question,
    *,
    max_windows: int,
    consent_only: bool = True,
    streams: Sequence[str] = (),
    split: Split | None = None,
) -> TrainingSet:
    """As `gather`, into memory without a bound: for `Wanted` with these attributes.

    Raises:
        StoreError: `store-open`.
    """
    spec = question.window
    room = Room((spec.length, spec.channels))
    found = gather(database_path, keys, Wanted(question, max_windows, consent_only, streams=streams, split=split), room)
    x, y = found.take(np.arange(len(found)))
    found.close()
    return TrainingSet(x, y, found.sessions, found.start_ns)


def gather(database_path: Path, keys: Keys, wanted: Wanted, room: Room) -> LabelledWindows:
    """Read windows, a session at a time.

    Args:
        database_path: the buffer's file; it may be in use.
        keys: the buffer's.
        wanted: which windows.
        room: where they go, of their shape and empty; the outcome closes it.

    Raises:
        StoreError: `store-open`, `room-write`.
    """
    notes, left, runs = Notes(wanted.question), wanted.max_windows, list[Int64]()
    streams = wanted.streams or (wanted.question.window.stream,)
    with closing(BufferReader(database_path, keys)) as reader:
        sessions = [session for session in reader.sessions() if session.stream in streams]
        for session in reversed(sessions):
            if left <= 0:
                break
            if wanted.consent_only and not session.consent_training:
                continue
            if wanted.split is not None and not wanted.split.may_have(session.session):
                continue
            runs.append(_newest(_answered(reader, session, wanted, notes), room, notes, left))
            left -= len(runs[-1])
    return LabelledWindows(room, np.concatenate([*reversed(runs), np.empty(0, np.int64)]), notes)


class Notes:
    """What is noted of a window beside its values, by its place: some bytes each."""

    def __init__(self, question: Question) -> None:
        self._classes = question.task == "classification"
        self._outputs = 1 if self._classes else len(question.labels)
        self._answers = array("q" if self._classes else "f")
        self.start_ns = array("q")
        self.until_ns = 0
        self.far = 0
        self.tags = bytearray()
        self.sessions: list[SessionId] = []

    def __len__(self) -> int:
        return len(self.sessions)

    def write(self, place: int, window: Window, answer: Answer) -> None:
        """Note a window at a place that was noted before, or at the next one."""
        if place == len(self.sessions):
            self._answers.extend([0] * self._outputs)
            self.start_ns.append(0)
            self.tags += bytes(_TAG_BYTES)
            self.sessions.append(window.session)
        self.until_ns = max(self.until_ns, window.end_ns)
        values = array(self._answers.typecode, np.atleast_1d(answer).tolist())
        self._answers[place * self._outputs : (place + 1) * self._outputs] = values
        self.start_ns[place], self.sessions[place] = window.start_ns, window.session
        head = f"{window.session} {window.start_ns} ".encode() + values.tobytes()
        tag = hashlib.blake2b(head + window.values.tobytes(), digest_size=_TAG_BYTES).digest()
        self.tags[place * _TAG_BYTES : (place + 1) * _TAG_BYTES] = tag

    def truth(self) -> Truth:
        """All answers, by place."""
        if self._classes:
            return np.array(self._answers, np.int64)
        return np.array(self._answers, np.float32).reshape(len(self), self._outputs)


def _newest(found: Iterator[tuple[Window, Answer]], room: Room, notes: Notes, most: int) -> Int64:
    """Put the newest windows of a session into the next places, round and round; the places, oldest first."""
    first, count = len(notes), 0
    for window, answer in found:
        place = first + count % most
        room.put(place, window.values)
        notes.write(place, window, answer)
        count += 1
    return first + np.roll(np.arange(min(count, most)), -(count % most) if count > most else 0)


def _answered(reader: BufferReader, session: Session, wanted: Wanted, notes: Notes) -> Iterator[tuple[Window, Answer]]:
    labels = [
        label
        for label in reader.labels(session.session)
        if label.stream == session.stream and label.number <= wanted.horizon.last_label
    ]
    question, split = wanted.question, wanted.split
    answers, spec = Answers(question, labels, wanted.min_cover), question.window
    if not answers.possible:
        return
    kept = stored_windows_of(reader, session, spec, question.labels)
    for window in chain(kept, windows_of(reader, session, spec)):
        if window.end_ns > wanted.horizon.until_ns:
            continue
        if split is not None and not split.has(window.session, window.start_ns, window.end_ns):
            continue
        answer = answers.answer(window)
        if answer is not None:
            yield window, answer
    notes.far += answers.far
