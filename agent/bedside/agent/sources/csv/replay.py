"""Plays a CSV file as if its rows came now: at their own distances, at any speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import BinaryIO, Final

from bedside.agent.formats.tables.lines import Line, Lines
from bedside.agent.sources.csv.follow import CHUNK_BYTES, HEAD_BYTES
from bedside.agent.sources.csv.rows import CsvOptions, CsvRows, Row, lines_of
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.position import MAX_WAITING_EVENTS
from bedside.agent.sources.recordings.marks import Annotator, Track, read_track
from bedside.agent.sources.recordings.replay import Pace, begin_ns
from bedside.core.clock import Clock
from bedside.core.errors import ConfigError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Event, Quality, Record, Unmapped
from bedside.core.vocabulary.reading import Reason
from bedside.ondevice.windows.part import end_ns
from bedside.service.files import private_opener

_LONE_ROW_NS: Final = 1_000_000_000
"""From the only row of a file to its next lap."""


class CsvReplay:
    """A `Source` that plays a file.

    Attributes:
        end_ns: signal time that it has reached; a restart begins there.
    """

    def __init__(
        self,
        options: CsvOptions,
        context: SourceContext,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare.

        Raises:
            ConfigError: from the options; `recording-missing`, `labels-missing`.
            MalformedError: `bad-labels`.
        """
        self.name = options.name
        self._options = options
        self._context = context
        self._clock = context.clock
        self._path = context.directory / options.path
        self._sleep = sleep
        stored_ns = context.last_end_ns(StreamId(options.stream))
        self._history_s = 0.0 if stored_ns else options.history_s
        self.end_ns = begin_ns(context.clock, options.start_ns, self._history_s, stored_ns)
        self._track = Track((), ())
        if options.labels:
            self._track = read_track(context.directory / options.labels, loop=False)
        _open(self._path).close()
        CsvRows(options, Quality.SIMULATED, 0)

    async def events(self) -> AsyncIterator[Event]:
        """Yield the file from its first row; end with it, unless it loops.

        Raises:
            ConfigError: `csv-columns`, `recording-missing`.
            StoreError: `not-kept`.
        """
        zero_ns = self.end_ns
        pace = Pace(self._clock, self._options.speed, self._history_s, self._sleep)
        self._history_s = 0.0
        rows = CsvRows(self._options, Quality.SIMULATED, 0)
        waiting = 0
        for _ in count() if self._options.loop else (0,):
            lap = _Lap(rows, self.end_ns, self._clock)
            annotator = Annotator(self._track, self.end_ns, "replay")
            async for event in self._played(lap, rows):
                until_ns = _until_ns(event)
                if until_ns is not None:
                    self.end_ns = max(self.end_ns, until_ns)
                    await pace.wait_for((self.end_ns - zero_ns) / 1e9)
                for one in annotator.annotate(event) if isinstance(event, Block) else (event,):
                    yield one
                waiting += 1
                if waiting >= MAX_WAITING_EVENTS:  # at any speed, it is not faster than the disk
                    await self._context.durable([StreamId(self._options.stream)])
                    waiting = 0
            if not lap.rows:
                return
            self.end_ns = lap.next_ns

    async def _played(self, lap: _Lap, rows: CsvRows) -> AsyncIterator[Event]:
        with await asyncio.to_thread(_open, self._path) as file:
            rows.begin(tuple(file.readline(HEAD_BYTES).removesuffix(b"\n") for _ in range(self._options.head_lines)))
            lines = Lines()
            while data := await asyncio.to_thread(partial(file.read, CHUNK_BYTES)):
                for event in lap.events(lines.feed(data)):
                    yield event
            for event in lap.events(lines.finish()):
                yield event
        for block in rows.flush():
            yield block


class _Lap:
    """One time through the file: the time of its first row is moved to where the signal goes on."""

    def __init__(self, rows: CsvRows, begin_ns: int, clock: Clock) -> None:
        self.rows = 0
        self._last_ns = begin_ns
        self._step_ns = rows.period_ns or _LONE_ROW_NS
        self._reader = rows
        self._begin_ns = begin_ns
        self._clock = clock
        self._first_ns: int | None = None

    @property
    def next_ns(self) -> int:
        """Where the next lap begins: as far behind the last row as that lies behind the one before it."""
        return self._last_ns + self._step_ns

    def events(self, lines: Iterator[Line]) -> Iterator[Event]:
        """What these lines become."""
        arrived_ns = self._clock.now_ns()
        for row in lines_of(self._reader, (line.data for line in lines), arrived_ns):
            if isinstance(row, Unmapped):
                yield row
            else:
                yield from self._row(row, arrived_ns)

    def _row(self, row: Row, arrived_ns: int) -> Iterator[Event]:
        if self._first_ns is None:
            self._first_ns = row.time_ns
        if row.time_ns < self._first_ns:
            yield self._reader.refused(Reason.BAD_TIME, arrived_ns)  # it lies before the first
            return
        time_ns = self._begin_ns + row.time_ns - self._first_ns
        if time_ns > self._last_ns:
            self._step_ns, self._last_ns = time_ns - self._last_ns, time_ns
        self.rows += 1
        events, _ = self._reader.events(row, time_ns, max(time_ns, arrived_ns))  # time may run ahead at any speed
        yield from events


def _until_ns(event: Event) -> int | None:
    """Until when an event reaches; None for one without a place."""
    if isinstance(event, Block):
        return end_ns(event)
    return event.time_ns if isinstance(event, Record) else None


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb", opener=private_opener)
    except OSError as error:
        raise ConfigError(
            "recording-missing", f"{path} cannot be read: {error.strerror or error}", remedy="check the path"
        ) from error
