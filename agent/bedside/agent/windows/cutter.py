"""Cuts windows from blocks, causally.

Invariants:
    * No window crosses a gap, a session, or a change of rate or form; `Run` decides, as in the buffer.
    * The same samples give the same windows, bit for bit, whatever the blocks they arrive in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bedside.agent.buffer.part import Run, offset_ns
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.ids import SessionId
from bedside.core.samples import Block


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One model input.

    Attributes:
        start_ns: time of the first sample.
        end_ns: time after the last sample.
        values: shape (length, channels), float32, normalised.
        closed_monotonic_s: when the sample that closed it arrived.
    """

    stream: str
    session: SessionId
    start_ns: int
    end_ns: int
    values: npt.NDArray[np.float32]
    closed_monotonic_s: float


class WindowCutter:
    """Cuts one stream.

    Attributes:
        gaps: runs that ended before a stream did (gap, session or form changed).
        unusable_blocks: blocks of another stream, rate or number of channels than the spec's.
    """

    def __init__(self, spec: WindowSpec) -> None:
        self.spec = spec
        self.gaps = 0
        self.unusable_blocks = 0
        self._offset = np.array(spec.offset, np.float64)
        self._scale = np.array(spec.scale, np.float64)
        self._run: Run | None = None
        self._kept = np.empty((0, spec.channels), np.float32)
        self._kept_index = 0
        self._next_index = 0

    def push(self, block: Block, session: SessionId, arrived_s: float) -> list[Window]:
        """Take a block that arrived at monotonic time `arrived_s`; return the windows that it closed."""
        if not self._usable(block):
            self.unusable_blocks += 1
            return []
        if self._run is None or not self._run.continues(block, session):
            self.gaps += self._run is not None
            self._run = Run.begin(block, session)
            self._kept = self._kept[:0]
            self._kept_index = self._next_index = 0
        self._run.samples += len(block.values)
        self._kept = np.concatenate([self._kept, self._normalise(block)])
        windows: list[Window] = []
        while self._next_index + self.spec.length <= self._run.samples:
            windows.append(self._cut(self._run, arrived_s))
            self._next_index += self.spec.hop
        self._forget()
        return windows

    def _usable(self, block: Block) -> bool:
        return (
            block.stream == self.spec.stream
            and block.values.shape[1] == self.spec.channels
            and abs(block.rate_hz - self.spec.rate_hz) <= 1e-3 * self.spec.rate_hz
        )

    def _normalise(self, block: Block) -> npt.NDArray[np.float32]:
        physical = block.values.astype(np.float64) * block.scale
        return ((physical - self._offset) * self._scale).astype(np.float32)

    def _cut(self, run: Run, arrived_s: float) -> Window:
        first = self._next_index - self._kept_index
        start_ns = run.start_ns + offset_ns(self._next_index, run.rate_hz)
        return Window(
            self.spec.stream,
            run.session,
            start_ns,
            run.start_ns + offset_ns(self._next_index + self.spec.length, run.rate_hz),
            self._kept[first : first + self.spec.length].copy(),
            arrived_s,
        )

    def _forget(self) -> None:
        """Drop the samples that no later window needs."""
        spent = min(self._next_index - self._kept_index, len(self._kept))
        self._kept = self._kept[spent:]
        self._kept_index += spent
