"""What a board has sampled and did not arrive is counted, by the board's own clock."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest

from bedside.agent.sources.kind import SourceGauge
from bedside.agent.sources.serial_port import LabelledSerialSource
from bedside.core.ids import StreamId
from bedside.core.samples import Block
from bedside.firmware_bridge.frames import FrameCounts

T0_NS = 1_790_000_000_000_000_000
SAMPLE_NS = 4_000_000


class Board:
    """Delivers ten samples at each of these places; a new boot has another zero."""

    name = "board"
    hello = None
    counts = FrameCounts()

    def __init__(self, *places: int, boots: tuple[int, ...] = ()) -> None:
        self.zero_ns: int | None = None
        self._places = places
        self._boots = boots

    async def events(self) -> AsyncIterator[Block]:
        for at in self._places:
            if self.zero_ns is None or at in self._boots:
                self.zero_ns = T0_NS + at
            yield Block(StreamId("wave"), T0_NS + at * SAMPLE_NS, 250.0, np.zeros((10, 2), np.int16))


@pytest.mark.parametrize(
    ("board", "missing"),
    [
        (Board(0, 10, 20), 0),
        (Board(0, 20, 30), 10),
        (Board(0, 13, 50), 30),
        (Board(0, 10, 90, boots=(90,)), 0),
    ],
)
async def test_samples_between_blocks_of_one_boot_are_missing(board: Board, missing: int) -> None:
    gauge = SourceGauge()
    blocks = [one async for one in LabelledSerialSource(board, None, gauge).events()]
    assert len(blocks) == 3
    assert gauge.dropped == missing
