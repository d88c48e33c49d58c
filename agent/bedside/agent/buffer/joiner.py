"""Blocks in, parts out: joins what follows, and cuts at seconds, gaps, sessions and changes of form."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bedside.agent.buffer.codec import most_samples
from bedside.core.ids import SessionId
from bedside.core.samples import Block, Quality, Samples
from bedside.ondevice.windows.part import NS_PER_S, Part, Run, offset_ns


@dataclass(slots=True)
class _Open:
    block: Block
    session: SessionId
    second: int
    start_ns: int
    arrived_s: float
    pieces: list[Samples] = field(default_factory=list)
    samples: int = 0
    quality: Quality = Quality.GOOD

    def part(self) -> Part:
        values: Samples = np.concatenate(self.pieces)  # type: ignore[assignment]  # all pieces share one dtype
        return Part(
            self.block.stream,
            self.session,
            self.second,
            self.start_ns,
            self.block.rate_hz,
            values,
            self.block.unit,
            self.block.metric,
            self.block.scale,
            self.quality,
        )


class Joiner:
    """The open part of one stream."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._open: _Open | None = None

    @property
    def opened_s(self) -> float | None:
        """Monotonic time at which the first sample of the open part arrived; None without one."""
        return self._open.arrived_s if self._open is not None else None

    @property
    def session(self) -> SessionId | None:
        """Whose samples it joins; None before the first."""
        return self._run.session if self._run is not None else None

    def add(self, block: Block, session: SessionId, arrived_s: float) -> list[Part]:
        """Take a block; return the parts that it completed."""
        done: list[Part] = []
        if self._run is None or not self._run.continues(block, session):
            done += self.close()
            self._run = Run.begin(block, session)
        first, most = 0, most_samples(block.values)
        while first < len(block.values):
            start_ns = block.start_ns + offset_ns(first, block.rate_hz)
            second = start_ns // NS_PER_S
            if self._open is None or self._open.second != second or self._open.samples >= most:
                done += self.close()
                self._open = _Open(block, session, second, start_ns, arrived_s)
            last = _end_in_second(block, first, second, most - self._open.samples)
            self._open.pieces.append(block.values[first:last])
            self._open.samples += last - first
            self._open.quality |= block.quality
            first = last
        self._run.samples += len(block.values)
        return done

    def close(self) -> list[Part]:
        """End the open part; the run goes on."""
        ended, self._open = self._open, None
        return [ended.part()] if ended is not None else []


def _end_in_second(block: Block, first: int, second: int, room: int) -> int:
    """Index after the last sample from `first` on that lies in `second`."""
    left_ns = (second + 1) * NS_PER_S - block.start_ns
    guess = left_ns * round(block.rate_hz * 1000) // (1000 * NS_PER_S)
    while offset_ns(guess, block.rate_hz) < left_ns:
        guess += 1
    return min(len(block.values), first + room, max(guess, first + 1))
