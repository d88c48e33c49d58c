import io

import numpy as np
from rich.console import Console

from bedside.agent.cli.sparks import sparkline
from bedside.demo.board import Board
from bedside.demo.cast import assemble
from bedside.demo.result import Result
from bedside.demo.screen import draw
from bedside.demo.sparks import columns
from bedside.demo.stage import PlainStage, open_stage
from bedside.proto.v1.operator_pb2 import CohortDetail, Participant, PhaseTime, RoundDetail, RoundSummary
from bedside.service.platform import SystemClock

CAST = assemble(range(1, 11), held_out=(9, 10), on_board=4)


def text_of(board: Board) -> str:
    out = io.StringIO()
    Console(file=out, width=140, height=50).print(draw(board, 12.0, 100.0))
    return out.getvalue()


def test_the_cast_is_three_hospitals_with_eight_that_train_and_two_that_only_infer() -> None:
    assert [len([d for d in h.devices if d.trains]) for h in CAST.hospitals] == [3, 3, 2]
    assert [device.wearer for device in CAST.held_out] == [9, 10]
    assert [device.wearer for device in CAST.devices if device.on_board] == [4]
    assert len(CAST.devices) == 10


def test_an_empty_board_can_be_drawn() -> None:
    words = text_of(Board(CAST, 10))

    assert "hospital-a" in words
    assert "no round yet" in words
    assert "starting" in words


def test_the_screen_shows_phases_trustees_and_both_histograms(result: Result) -> None:
    board = Board(CAST, 10, view=result.view, rules={"hospital-b": "at least 3 trusted devices"})
    trustee = Participant(id="trustee-1", site="hospital-b", role="trustee", state="voted", sentence="")
    device = Participant(id="device-1", site="hospital-b", label="wearer-4", role="device", state="accepted")
    board.detail = RoundDetail(
        summary=RoundSummary(round_number=4, phase="sealed"),
        cohorts=[CohortDetail(trustees=[trustee], devices=[device])],
        phases=[PhaseTime(phase="opening", elapsed_ms=420)],
    )
    board.sentences.append("the coordinator was killed")

    words = text_of(board)

    assert "round 4" in words
    assert "opening     0.4 s" in words
    assert "voted" in words
    assert "accepted" in words
    assert "the opened sum of 8 devices" in words
    assert "the coordinator was killed" in words


def test_a_sparkline_follows_the_signal() -> None:
    line = sparkline(np.linspace(0, 1, 64, dtype=np.float32), 8)

    assert line == "▁▂▃▄▅▆▇█"
    assert sparkline(np.empty(0, np.float32), 8) == ""


def test_a_histogram_keeps_its_shape_when_bins_are_joined() -> None:
    rows = columns([1, 1, 4, 4, 2, 2], width=3, height=2)

    assert rows == [" █ ", "▄██"]


def test_plain_lines_are_used_where_there_is_no_terminal() -> None:
    out = io.StringIO()

    with open_stage(Board(CAST, 10), out, SystemClock()) as stage:
        stage.say("first\nline")

    assert isinstance(stage, PlainStage)
    assert out.getvalue().count("\n") == 1
    assert "first\\nline" in out.getvalue()
