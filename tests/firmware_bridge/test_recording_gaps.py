"""A recording with stretches that were not recorded: kept, and never played as signal."""

from pathlib import Path

import numpy as np
import pytest

from bedside.core.errors import MalformedError
from bedside.firmware_bridge.frames import FrameParser, write_frame
from bedside.firmware_bridge.messages import Samples
from bedside.firmware_bridge.recording import Recording, read_recording, write_recording
from bedside.firmware_bridge.virtual_board import VirtualBoard

GAPS = ((0, 10), (40, 95))
MADE = Recording(np.arange(100, dtype=np.int16)[:, np.newaxis], 50.0, gaps=GAPS)


def test_gaps_come_back_from_a_file(tmp_path: Path) -> None:
    write_recording(tmp_path / "signal.npz", MADE)
    assert read_recording(tmp_path / "signal.npz").gaps == GAPS


def test_pieces_are_what_was_recorded() -> None:
    assert MADE.pieces(16) == [(10, 26), (26, 40), (95, 100)]
    assert Recording(MADE.values, 50.0).pieces(60) == [(0, 60), (60, 100)]


@pytest.mark.parametrize("gaps", [((5, 5),), ((5, 9), (9, 12)), ((8, 12), (5, 7)), ((90, 101),), ((-1, 3),)])
def test_gaps_that_cannot_be_are_refused(gaps: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(MalformedError, match="gaps"):
        Recording(MADE.values, 50.0, gaps=gaps)


def test_a_virtual_board_is_silent_in_a_gap() -> None:
    board, parser = VirtualBoard(MADE, 7), FrameParser()
    parser.feed(write_frame(board.hello))
    sent = [event for timed in board.frames() for event in parser.feed(timed.frame) if isinstance(event, Samples)]
    at = {round(one.clock_us * 50 / 1e6): one.values[0, 0] for one in sent}
    assert at[10] == 10
    assert at[95] == 95
    assert sum(len(one.values) for one in sent) == 35
