"""A sensor board on a serial port, with labels from a file where the demo or a study has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

from bedside.agent.sources.kind import SourceContext, SourceGauge, SourceKind, SourceOptions, option
from bedside.agent.sources.recordings.marks import Annotator, Track, read_track
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Mark
from bedside.firmware_bridge.messages import Hello
from bedside.firmware_bridge.serial_source import SerialSource
from bedside.ondevice.windows.part import end_ns
from bedside.service.text import bounded

_DETAIL_CHARS: Final = 160


class SerialOptions(SourceOptions, frozen=True, kw_only=True):
    """A sensor board on a serial port."""

    stream: Annotated[str, option("id of the stream")]
    port: Annotated[str, option("device file")]
    baud: Annotated[int, option("bits per second")] = 115_200
    board_stream: Annotated[str, option("the board's name of it, else its first")] = ""
    channels: Annotated[tuple[int, ...], option("columns to keep, else all")] = ()
    labels: Annotated[str, option(".npz or CSV (start_s, end_s, label) in the board's time")] = ""
    loop: Annotated[bool, option("the board begins again where labels end")] = False


class LabelledSerialSource:
    """A `Source`: the blocks of a board, under the labels and sessions of a track whose zero is the board's boot.

    What the board has sampled and did not arrive, by the board's own clock, is counted as dropped.
    """

    def __init__(self, board: SerialSource, track: Track | None = None, gauge: SourceGauge | None = None) -> None:
        self.name = board.name
        self._gauge = gauge or SourceGauge()
        self._reached: tuple[int | None, int] = (None, 0)
        self._told: tuple[Hello, int, int] | None = None
        self.board = board
        self._track = track
        self._annotator: Annotator | None = None
        self._zero_ns: int | None = None

    async def events(self) -> AsyncIterator[Block | Mark]:
        """Yield blocks and marks until the port is lost; see `SerialSource.events` for the errors."""
        async for block in self.board.events():
            self._count_missing(block)
            self._tell()
            for event in self._annotate(block):
                yield event

    def _count_missing(self, block: Block) -> None:
        zero_ns, reached_ns = self._reached
        if zero_ns == self.board.zero_ns and block.start_ns > reached_ns:
            self._gauge.dropped += round((block.start_ns - reached_ns) * block.rate_hz / 1e9)
        self._reached = (self.board.zero_ns, end_ns(block))

    def _tell(self) -> None:
        """Which board it is, and what of it was lost on the way."""
        hello, counts = self.board.hello, self.board.counts
        lost = (counts.errors, counts.missed_messages)
        if hello is not None and (hello, *lost) != self._told:
            self._told = (hello, *lost)
            bad = f", {lost[0]} bad frames, {lost[1]} messages missed" if any(lost) else ""
            self._gauge.detail = bounded(
                f"board {hello.board_id}, firmware {hello.firmware_version}{bad}", _DETAIL_CHARS
            )

    def _annotate(self, block: Block) -> list[Block | Mark]:
        zero_ns = self.board.zero_ns
        if self._track is None or zero_ns is None:
            return [block]
        if self._annotator is None or zero_ns != self._zero_ns:
            self._annotator = Annotator(self._track, zero_ns, "file")
            self._zero_ns = zero_ns
        return list(self._annotator.annotate(block))


def _build(options: SerialOptions, context: SourceContext) -> LabelledSerialSource:
    stream = StreamId(options.stream)
    board = SerialSource(
        options.name,
        options.port,
        stream,
        context.clock,
        board_stream=options.board_stream,
        channels=options.channels,
        baud=options.baud,
        not_before_ns=context.last_end_ns(stream),
    )
    track = read_track(context.directory / options.labels, loop=options.loop) if options.labels else None
    return LabelledSerialSource(board, track, context.gauge)


KIND: Final = SourceKind(SerialOptions, _build)
