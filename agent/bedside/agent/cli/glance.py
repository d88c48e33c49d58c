"""What `bedside agent top` shows at one moment: the agent's status, and beside it what is in the file."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Alarm, Prediction
from bedside.agent.client import LocalAgent
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError, StoreError, UnavailableError
from bedside.core.ids import StreamId
from bedside.proto.v1.local_pb2 import AgentStatus

MAX_STREAMS_SHOWN: Final = 16
MAX_ROWS: Final = 16
RATE_S: Final = 10.0
"""Rates are means over so many seconds: a model decides once or twice in one."""
WAVE_PARTS: Final = 4
"""Newest parts of a stream that are drawn: some seconds."""

Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Stored:
    """What is in the file.

    Attributes:
        waves: the newest seconds of a stream's first channel, where it has signal.
        predictions: the newest, newest first.
        alarms: those that are open, newest first.
    """

    waves: Mapping[str, Wave] = field(default_factory=dict)
    predictions: Sequence[Prediction] = ()
    alarms: Sequence[Alarm] = ()


@dataclass(frozen=True)
class Glance:
    """One moment.

    Attributes:
        now_ns: of it.
        stored: what is in the file.
        status: what the agent says; None while it does not answer.
        predictions_per_s: by model, over the last ten seconds or since the first glance.
        written_bytes_per_s: by the buffer, over the same time; None for the first glance.
        trouble: why there is no status.
    """

    now_ns: int
    stored: Stored
    status: AgentStatus | None = None
    predictions_per_s: Mapping[str, float] = field(default_factory=dict)
    written_bytes_per_s: float | None = None
    trouble: str = ""


class Watcher:
    """Looks again and again."""

    def __init__(self, agent: LocalAgent, reader: BufferReader, clock: Clock) -> None:
        self._agent = agent
        self._reader = reader
        self._clock = clock
        self._before: deque[tuple[float, AgentStatus]] = deque()

    async def look(self) -> Glance:
        """The moment that is now; an agent that went away is said, not raised."""
        try:
            status = await self._agent.status()
        except UnavailableError as error:
            self._before.clear()
            return Glance(self._clock.now_ns(), self._stored(()), trouble=error.sentence)
        now_s = self._clock.monotonic_s()
        if self._before and status.uptime_s < self._before[-1][1].uptime_s:  # another process counts from 0
            self._before.clear()
        while len(self._before) > 1 and now_s - self._before[1][0] >= RATE_S:
            self._before.popleft()
        rates, written = self._rates(now_s, status)
        self._before.append((now_s, status))
        shown = [stream.stream for stream in status.streams][:MAX_STREAMS_SHOWN]
        return Glance(self._clock.now_ns(), self._stored(shown), status, rates, written)

    def _rates(self, now_s: float, status: AgentStatus) -> tuple[dict[str, float], float | None]:
        if not self._before:
            return {}, None
        then_s, then = self._before[0]
        seconds = max(1e-3, now_s - then_s)
        before = {model.name: model.predictions for model in then.models}
        made = {
            model.name: max(0, model.predictions - before[model.name]) / seconds
            for model in status.models
            if model.name in before
        }
        written = status.buffer.written_bytes - then.buffer.written_bytes
        return made, max(0, written) / seconds

    def _stored(self, streams: Sequence[str]) -> Stored:
        try:
            last = self._reader.last_prediction()
            newest = self._reader.predictions(max(0, last.number - MAX_ROWS), MAX_ROWS) if last is not None else []
            alarms = self._reader.alarms(MAX_ROWS, open_only=True)
            waves = {stream: wave for stream in streams if (wave := self._wave(StreamId(stream))).size}
        except StoreError:
            return Stored()
        return Stored(waves, newest[::-1], alarms[::-1])

    def _wave(self, stream: StreamId) -> Wave:
        try:
            parts = self._reader.newest_parts(stream, WAVE_PARTS)
        except BedsideError:
            return np.zeros(0, np.float32)
        channels = [part.values[:, 0].astype(np.float32) * np.float32(part.scale) for part in parts]
        return np.concatenate(channels) if channels else np.zeros(0, np.float32)
