"""Follows a CSV file that another program appends to.

A row is delivered once, whatever ends the process: the position is written after the rows before it are durable, so
that at most the last second or so is read again. What is read again is recognised: a sample by its time, a record by
the store, which holds it already; and a row that could not be read by the stored row behind it, for what arrives is
committed in its order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import msgspec

from bedside.agent.formats.tables.lines import Lines
from bedside.agent.sources.catch_up import CatchUp
from bedside.agent.sources.csv.follow import FilePlace, Follower, Piece, What
from bedside.agent.sources.csv.rows import CsvOptions, CsvRows, Row, lines_of
from bedside.agent.sources.csv.wave_rows import Placed
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.position import Position
from bedside.core.ids import StreamId
from bedside.core.samples import Event, Quality, Unmapped


class TailPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the source has read, and of which path."""

    path: str
    file: FilePlace


class CsvTail:
    """A `Source` on a growing file."""

    def __init__(
        self,
        options: CsvOptions,
        context: SourceContext,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare.

        Raises:
            ConfigError: from the options.
        """
        self.name = options.name
        self._options = options
        self._context = context
        self._path = context.directory / options.path
        self._stream = StreamId(options.stream)
        self._sleep = sleep
        self._position = Position(options.name, TailPlace, context)
        self._begin(None)

    async def events(self) -> AsyncIterator[Event]:
        """Yield what is appended, for ever.

        Raises:
            UnavailableError: `file-unreadable`.
            ConfigError: `csv-columns`.
            StoreError: `position-unreadable`, `file-write`.
        """
        kept = await asyncio.to_thread(self._position.read)
        place = kept.file if kept is not None and kept.path == str(self._path) else None
        self._begin(place)
        follower = Follower(self._path, place, self._options.head_lines)
        try:
            while True:
                piece = await asyncio.to_thread(follower.read)
                self._note(piece, follower)
                events = 0
                for event in self._taken(piece):
                    events += 1
                    yield event
                file = follower.place_at(self._lines.offset)
                if file is not None:
                    await self._position.keep(TailPlace(str(self._path), file), [self._stream], events)
                if piece.what in {What.QUIET, What.ABSENT}:
                    await self._sleep(self._options.every_s)
        finally:
            follower.close()

    def _begin(self, place: FilePlace | None) -> None:
        stored_ns = self._context.last_end_ns(self._stream)
        self._rows = CsvRows(self._options, Quality.GOOD, stored_ns)
        self._lines = Lines()
        self._catch_up = CatchUp(self._context.last_end_ns, [self._stream], active=place is not None)

    def _note(self, piece: Piece, follower: Follower) -> None:
        gauge = self._context.gauge
        gauge.connected = piece.what is not What.ABSENT
        if follower.lost:
            gauge.detail = "the file that was read last is gone; what was added to it since is not known"
        elif piece.what is What.ABSENT:
            gauge.detail = "there is no such file"
        else:
            gauge.detail = ""

    def _taken(self, piece: Piece) -> Iterator[Event]:
        if piece.what is What.BEGUN:
            self._rows.begin(piece.head)
            self._lines = Lines(piece.offset)
        cut = self._lines.finish() if piece.what is What.ENDED else self._lines.feed(piece.data)
        arrived_ns = self._context.clock.now_ns()
        for row in lines_of(self._rows, (line.data for line in cut), arrived_ns):
            yield from self._catch_up.taken([row]) if isinstance(row, Unmapped) else self._row(row, arrived_ns)
        yield from self._rows.flush()
        if piece.what is not What.DATA:
            yield from self._catch_up.release()

    def _row(self, row: Row, arrived_ns: int) -> list[Event]:
        events, placed = self._rows.events(row, row.time_ns, arrived_ns)
        self._context.gauge.duplicates += placed is Placed.KNOWN
        return self._catch_up.taken(events, known=placed is Placed.KNOWN)
