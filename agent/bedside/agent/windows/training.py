"""Training examples from the buffer: the windows that inference saw, joined with labels by time.

Those of expired signal come from the store, the others are cut from what is left; a window comes from one of the two.
"""

from __future__ import annotations

from collections import deque
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
from bedside.agent.windows.holdout import Split
from bedside.agent.windows.stored import stored_windows_of, windows_of
from bedside.agent.windows.targets import Answer, Answers, Question, stack_answers
from bedside.core.ids import SessionId
from bedside.ondevice.windows.cutter import Window

MIN_COVER: Final = 0.9
"""Share of a window that one label must cover."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Labelled windows in the order of their sessions and time.

    Attributes:
        x: shape (windows, length, channels), float32, normalised.
        y: what they are examples of: (windows,) int64, index into the labels asked for; of several labels or a
            regression (windows, outputs) float32, see `targets`.
        sessions: the session of each window, for splits by session.
        start_ns: shape (windows,), int64.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    sessions: list[SessionId]
    start_ns: npt.NDArray[np.int64]


def collect(
    database_path: Path,
    keys: Keys,
    question: Question,
    *,
    max_windows: int,
    consent_only: bool = True,
    min_cover: float = MIN_COVER,
    streams: Sequence[str] = (),
    split: Split | None = None,
) -> TrainingSet:
    """Read the newest `max_windows` windows whose answer is known.

    Args:
        database_path: the buffer's file; it may be in use.
        keys: the buffer's.
        question: stream, window and normalisation, and the outputs; windows with another label are left out.
        max_windows: bound of memory: length x channels x 4 bytes each.
        consent_only: leave out sessions without consent for training.
        min_cover: share of a window that labels must cover.
        streams: those that the model is bound to; empty for the one that the spec names.
        split: which windows; None for all of them, also those that are held out.

    Raises:
        StoreError: `store-open`.
    """
    found: list[list[tuple[Window, Answer]]] = []
    spec = question.window
    left = max_windows
    with closing(BufferReader(database_path, keys)) as reader:
        sessions = [session for session in reader.sessions() if session.stream in (streams or (spec.stream,))]
        for session in reversed(sessions):
            if left <= 0:
                break
            if consent_only and not session.consent_training:
                continue
            if split is not None and not split.may_have(session.session):
                continue
            newest = deque(_answered(reader, session, question, min_cover, split), maxlen=left)
            left -= len(newest)
            found.append(list(newest))
    return _stack([pair for session_pairs in reversed(found) for pair in session_pairs], question)


def _answered(
    reader: BufferReader, session: Session, question: Question, min_cover: float, split: Split | None
) -> Iterator[tuple[Window, Answer]]:
    labels = [label for label in reader.labels(session.session) if label.stream == session.stream]
    answers, spec = Answers(question, labels, min_cover), question.window
    if not answers.possible:
        return
    kept = stored_windows_of(reader, session, spec, question.labels)
    for window in chain(kept, windows_of(reader, session, spec)):
        if split is not None and not split.has(window.session, window.start_ns, window.end_ns):
            continue
        answer = answers.answer(window)
        if answer is not None:
            yield window, answer


def _stack(pairs: list[tuple[Window, Answer]], question: Question) -> TrainingSet:
    spec = question.window
    x = np.empty((len(pairs), spec.length, spec.channels), np.float32)
    for row, (window, _) in enumerate(pairs):
        x[row] = window.values
    return TrainingSet(
        x,
        stack_answers([answer for _, answer in pairs], question),
        [window.session for window, _ in pairs],
        np.array([window.start_ns for window, _ in pairs], np.int64),
    )
