"""Plays a recording as if its sensor were here: blocks of at most 40 ms, labels and sessions, at any speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from typing import Annotated, Final

from bedside.agent.buffer.bounds import END_NS
from bedside.agent.config_bounds import MAX_WAIT_S
from bedside.agent.sources.kind import SourceContext, SourceKind, SourceOptions, option
from bedside.agent.sources.recordings.marks import Annotator, track_of
from bedside.core.clock import Clock
from bedside.core.errors import ConfigError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark, Quality, samples_per_block
from bedside.firmware_bridge.recording import Recording, read_recording
from bedside.ondevice.windows.part import offset_ns

_EARLY_S: Final = 0.001
"""A block may come this much early: saves a timer per block at high speed."""


class PlayOptions(SourceOptions, frozen=True, kw_only=True):
    """How anything recorded is played."""

    stream: Annotated[str, option("id of the stream")]
    speed: Annotated[float, option("times real time, 0 as fast as possible")] = 1.0
    history_s: Annotated[float, option("seconds that come at once, before")] = 0.0
    loop: Annotated[bool, option("begin again at the end")] = False
    start_ns: Annotated[int | None, option("time of the first sample, else now")] = None

    def check(self) -> None:
        """Refuse what cannot be played.

        Raises:
            ConfigError: `bad-speed`, `bad-history`, `bad-start`.
        """
        if not self.speed >= 0:
            raise ConfigError(
                "bad-speed", f"source {self.name}: a speed of {self.speed} is impossible", remedy="0 or more"
            )
        if not 0 <= self.history_s <= MAX_WAIT_S:
            raise ConfigError(
                "bad-history",
                f"source {self.name}: {self.history_s} s of history are impossible",
                remedy=f"0 to {MAX_WAIT_S}: a year",
            )
        if self.start_ns is not None and not 0 <= self.start_ns < END_NS:
            raise ConfigError(
                "bad-start",
                f"source {self.name}: signal cannot begin at {self.start_ns} ns",
                remedy="use nanoseconds since 1970, before April 2262",
            )


class ReplayOptions(PlayOptions, frozen=True, kw_only=True):
    """A recording."""

    data: Annotated[str, option("recording, .npz")]


class Pace:
    """Waits until a moment of the signal is due: its first seconds at once, the rest at a speed."""

    def __init__(self, clock: Clock, speed: float, history_s: float, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._clock = clock
        self._speed = speed
        self._history_s = history_s
        self._sleep = sleep
        self._began_s = clock.monotonic_s()

    async def wait_for(self, signal_s: float) -> None:
        """Return when the signal that ends `signal_s` seconds after its first sample is due."""
        if signal_s <= self._history_s:
            self._began_s = self._clock.monotonic_s()
        early_s = 0.0
        if self._speed > 0:
            early_s = self._began_s + (signal_s - self._history_s) / self._speed - self._clock.monotonic_s()
        await self._sleep(early_s if early_s > _EARLY_S else 0.0)


def begin_ns(clock: Clock, start_ns: int | None, history_s: float, not_before_ns: int) -> int:
    """Signal time of the first sample: as told, else now less the history; never before what was delivered."""
    wanted_ns = max(0, clock.now_ns() - int(history_s * 1e9)) if start_ns is None else start_ns
    return max(not_before_ns, wanted_ns)


class ReplaySource:
    """A `Source` on a recording.

    Attributes:
        name: of the source.
        end_ns: signal time that it has reached; a restart goes on there.
    """

    def __init__(
        self,
        name: str,
        stream: StreamId,
        recording: Recording,
        clock: Clock,
        *,
        speed: float = 1.0,
        history_s: float = 0.0,
        loop: bool = False,
        start_ns: int | None = None,
        not_before_ns: int = 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare.

        Args:
            name: of the source.
            stream: id that the blocks carry.
            recording: what to play.
            clock: paces the blocks, and gives the start time when `start_ns` is None.
            speed: times real time; 0 is as fast as the consumer takes them.
            history_s: seconds of signal that are delivered at once, as if the device had been here for so long;
                only where no earlier process has delivered anything.
            loop: begin again at the end, with new sessions; signal time goes on.
            start_ns: signal time of the first sample; without it, now, less the history.
            not_before_ns: end of what an earlier process delivered.
            sleep: waits for seconds.
        """
        self.name = name
        self._history_s = 0.0 if not_before_ns else history_s
        self.end_ns = begin_ns(clock, start_ns, self._history_s, not_before_ns)
        self._stream = stream
        self._recording = recording
        self._clock = clock
        self._speed = speed
        self._loop = loop
        self._sleep = sleep

    async def events(self) -> AsyncIterator[Block | Mark]:
        """Yield the recording from its first sample; end with it, unless it loops."""
        zero_ns = self.end_ns
        pace = Pace(self._clock, self._speed, self._history_s, self._sleep)
        self._history_s = 0.0
        annotator = Annotator(track_of(self._recording, loop=self._loop), zero_ns, "replay")
        for block in self._blocks(zero_ns):
            signal_s = (block.start_ns - zero_ns) / 1e9 + len(block.values) / block.rate_hz
            await pace.wait_for(signal_s)
            for event in annotator.annotate(block):
                yield event
            self.end_ns = block.start_ns + offset_ns(len(block.values), block.rate_hz)

    def _blocks(self, zero_ns: int) -> Iterator[Block]:
        recording = self._recording
        pieces = recording.pieces(samples_per_block(recording.rate_hz))
        behind_gap = {end for _, end in recording.gaps}
        for lap in count() if self._loop else (0,):
            for first, end in pieces:
                yield Block(
                    stream=self._stream,
                    start_ns=zero_ns + offset_ns(lap * len(recording.values) + first, recording.rate_hz),
                    rate_hz=recording.rate_hz,
                    values=recording.values[first:end],
                    unit=recording.unit,
                    metric=recording.metric,
                    scale=recording.scale,
                    quality=Quality.SIMULATED | (Quality.GAP_BEFORE if first in behind_gap else Quality.GOOD),
                )


def _build(options: ReplayOptions, context: SourceContext) -> ReplaySource:
    options.check()
    return played(options, read_recording(context.directory / options.data), context)


def played(options: PlayOptions, recording: Recording, context: SourceContext) -> ReplaySource:
    """The source that plays `recording` as `options` say."""
    stream = StreamId(options.stream)
    return ReplaySource(
        options.name,
        stream,
        recording,
        context.clock,
        speed=options.speed,
        history_s=options.history_s,
        loop=options.loop,
        start_ns=options.start_ns,
        not_before_ns=context.last_end_ns(stream),
    )


KIND: Final = SourceKind(ReplayOptions, _build)
