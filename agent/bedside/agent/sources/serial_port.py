"""A sensor board on a serial port, with labels from a file where the demo or a study has them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from bedside.agent.sources.marks import Annotator, Track
from bedside.core.samples import Block, Mark
from bedside.firmware_bridge.serial_source import SerialSource


class LabelledSerialSource:
    """A `Source`: the blocks of a board, under the labels and sessions of a track whose zero is the board's boot."""

    def __init__(self, board: SerialSource, track: Track | None = None) -> None:
        self.name = board.name
        self.board = board
        self._track = track
        self._annotator: Annotator | None = None
        self._zero_ns: int | None = None

    async def events(self) -> AsyncIterator[Block | Mark]:
        """Yield blocks and marks until the port is lost; see `SerialSource.events` for the errors."""
        async for block in self.board.events():
            for event in self._annotate(block):
                yield event

    def _annotate(self, block: Block) -> list[Block | Mark]:
        zero_ns = self.board.zero_ns
        if self._track is None or zero_ns is None:
            return [block]
        if self._annotator is None or zero_ns != self._zero_ns:
            self._annotator = Annotator(self._track, zero_ns, "file")
            self._zero_ns = zero_ns
        return list(self._annotator.annotate(block))
