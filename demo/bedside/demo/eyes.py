"""What one device does, read from its own buffer beside it: predictions, the truth under them, and the signal."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Label, Prediction
from bedside.agent.config import BUFFER_NAME
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError
from bedside.core.ids import SessionId, StreamId
from bedside.demo.cast import Device
from bedside.ondevice.windows.labelling import MIN_COVER
from bedside.service.identity import DIRECTORY_NAME

_PAGE_ROWS = 1_000
_SHOWN_SAMPLES = 128


@dataclass
class Tally:
    """Predictions of one model on one device: all of them, and the right ones among those with a known truth."""

    predictions: int = 0
    known: int = 0
    right: int = 0


@dataclass
class DeviceEye:
    """Follows one device through the read side of its buffer.

    Attributes:
        device: which one.
        state_dir: its state directory.
        clock: for the age of the newest prediction.
        predictions: how many it has made.
        last: the newest.
        truth: the label under the newest; empty where none is known.
        seen_s: monotonic time at which the newest was seen.
        tallies: per model, by the digest that the predictions carry.
        signal: values of the newest window's first axis.
    """

    device: Device
    state_dir: Path
    clock: Clock
    predictions: int = 0
    last: Prediction | None = None
    truth: str = ""
    seen_s: float = 0.0
    tallies: dict[bytes, Tally] = field(default_factory=dict)
    signal: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    _reader: BufferReader | None = None
    _after: int = 0
    _labels: dict[SessionId, list[Label]] = field(default_factory=dict)

    def poll(self, *, with_signal: bool = False) -> None:
        """Take what is new. A buffer that is not there yet, or is being opened by its owner, is tried again later."""
        try:
            reader = self._open()
            self._take(reader)
            if with_signal:
                self._look(reader)
        except (BedsideError, sqlite3.Error):
            self.close()

    def close(self) -> None:
        """Close the connection; the next poll opens it again."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def labelled_s(self, stream: StreamId) -> float:
        """Seconds of labelled signal that the buffer holds, in sessions that have ended."""
        try:
            reader = self._open()
            closed = [one for one in reader.sessions(stream) if one.closed_ns is not None]
            return sum(((one.closed_ns or 0) - one.opened_ns) / 1e9 for one in closed if reader.labels(one.session))
        except (BedsideError, sqlite3.Error):
            self.close()
            return 0.0

    def accuracy(self) -> float | None:
        """Of the model that is in use now, on what this device saw with it; None while nothing is known."""
        tally = self.tallies.get(self.last.model) if self.last else None
        return tally.right / tally.known if tally and tally.known else None

    def _open(self) -> BufferReader:
        if self._reader is None:
            self._reader = BufferReader(self.state_dir / BUFFER_NAME, load_key_ring(self.state_dir / DIRECTORY_NAME))
        return self._reader

    def _take(self, reader: BufferReader) -> None:
        while rows := reader.predictions(self._after, _PAGE_ROWS):
            for row in rows:
                self._count(reader, row)
            self._after = rows[-1].number
            self.seen_s = self.clock.monotonic_s()

    def _count(self, reader: BufferReader, row: Prediction) -> None:
        self.predictions += 1
        self.last, self.truth = row, self._truth(reader, row)
        tally = self.tallies.setdefault(row.model, Tally())
        tally.predictions += 1
        tally.known += bool(self.truth)
        tally.right += row.label == self.truth

    def _truth(self, reader: BufferReader, row: Prediction) -> str:
        """The label that covers the window; labels of a session are read once, and again when none covers it."""
        for attempt in range(2):
            if row.session not in self._labels or attempt:
                self._labels[row.session] = reader.labels(row.session)
            needed_ns = MIN_COVER * (row.end_ns - row.start_ns)
            for label in self._labels[row.session]:
                if min(label.end_ns, row.end_ns) - max(label.start_ns, row.start_ns) >= needed_ns:
                    return label.label
        return ""

    def _look(self, reader: BufferReader) -> None:
        if self.last is None:
            return
        row = self.last
        stretches = reader.read_range(row.stream, row.session, row.start_ns, row.end_ns)
        if stretches:
            self.signal = (stretches[-1].values[-_SHOWN_SAMPLES:, 0] * stretches[-1].scale).astype(np.float32)
