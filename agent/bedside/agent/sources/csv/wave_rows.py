"""Rows of samples into blocks: a row goes where its time says, on the grid of a fixed rate.

Invariants: a row within half a sample of its place continues the run; a later one begins another run, behind a gap
that its block flags; an earlier one is refused, for signal time never goes back.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

import numpy as np

from bedside.core.ids import StreamId
from bedside.core.samples import Block, Quality, samples_per_block
from bedside.ondevice.windows.part import offset_ns


class Placed(Enum):
    """What became of a row."""

    TAKEN = auto()
    KNOWN = auto()
    """It lies before the end of what an earlier process stored."""
    LATE = auto()


class WaveRows:
    """Joins the rows of one stream."""

    def __init__(
        self,
        stream: StreamId,
        rate_hz: float,
        *,
        unit: str = "1",
        metric: str = "",
        scale: float = 1.0,
        quality: Quality = Quality.GOOD,
        known_until_ns: int = 0,
    ) -> None:
        """Prepare.

        Args:
            stream: id that the blocks carry.
            rate_hz: rows per second.
            unit: UCUM code of a value times `scale`.
            metric: MDC reference id.
            scale: physical value = value times `scale`.
            quality: of every block.
            known_until_ns: end of what is stored; 0 = nothing is.
        """
        self._stream = stream
        self._rate_hz = rate_hz
        self._form = (unit, metric, scale)
        self._quality = quality
        self._period_ns: Final = offset_ns(1, rate_hz)
        self._step: Final = samples_per_block(rate_hz)
        self._begin_ns = known_until_ns
        self._samples = 0
        self._caught_up = not known_until_ns
        self._begun = bool(known_until_ns)
        self._gap = False
        self._rows: list[list[float]] = []
        self._done: list[Block] = []

    def add(self, time_ns: int, row: list[float]) -> Placed:
        """Take one value per channel."""
        ahead_ns = time_ns - self._next_ns if self._begun else 0
        if ahead_ns * 2 < -self._period_ns:
            return Placed.LATE if self._caught_up else Placed.KNOWN
        if not self._begun or ahead_ns * 2 > self._period_ns:
            self._end_block()
            self._gap = self._begun
            self._begin_ns, self._samples, self._begun = time_ns, 0, True
        self._caught_up = True
        self._rows.append(row)
        self._samples += 1
        if len(self._rows) >= self._step:
            self._end_block()
        return Placed.TAKEN

    def blocks(self, *, flush: bool = False) -> list[Block]:
        """The blocks that are complete; with `flush`, the unfinished one as well."""
        if flush:
            self._end_block()
        done, self._done = self._done, []
        return done

    @property
    def _next_ns(self) -> int:
        return self._begin_ns + offset_ns(self._samples, self._rate_hz)

    def _end_block(self) -> None:
        if not self._rows:
            return
        unit, metric, scale = self._form
        self._done.append(
            Block(
                self._stream,
                self._begin_ns + offset_ns(self._samples - len(self._rows), self._rate_hz),
                self._rate_hz,
                np.array(self._rows, np.float32),
                unit,
                metric,
                scale,
                self._quality | (Quality.GAP_BEFORE if self._gap else Quality.GOOD),
            )
        )
        self._rows, self._gap = [], False
