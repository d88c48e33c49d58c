"""An explanation on a terminal: the piece that matters is the warmest, in colour and without."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from bedside.agent.buffer.rows import Prediction
from bedside.agent.cli.heat import heat, plain_heat
from bedside.agent.client_rows import Explanation, explanation_of
from bedside.proto.v1 import local_pb2

WINDOW = Prediction("wrist", "x", 0, 1_280_000_000, "wa\x1b[2Jlk", 0.93, b"", 0.0, "m", 159)


def found(segments: int = 8, channels: int = 2) -> Explanation:
    """One piece speaks for the class, one half as strongly against it."""
    effects = np.zeros((segments, channels), np.float32)
    effects[3, 0], effects[5, 1] = 0.4, -0.2
    return Explanation(159, "occlusion", effects)


def test_without_colour_signs_and_shades_stand_at_their_place() -> None:
    title, first, second, axis, legend = plain_heat(found(), WINDOW).splitlines()
    assert first == "channel 0 " + "  " * 3 + "+█" + "  " * 4
    assert second == "channel 1 " + "  " * 5 + "-▓" + "  " * 2
    assert axis.endswith("1.28 s")
    assert "0.400" in legend
    assert "\x1b" not in title


def test_in_colour_the_strongest_piece_is_warm_and_the_contrary_one_cold() -> None:
    text = heat(found(), WINDOW, 80)
    cells = [span.style.bgcolor.triplet for span in text.spans if getattr(span.style, "bgcolor", None)]
    assert len(cells) == 2 * 8 + 2
    warm, neutral, cold = cells[3], cells[0], cells[8 + 5]
    assert warm.red > neutral.red
    assert cold.blue > neutral.blue
    assert warm == cells[-2], "as the legend has it"
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=80)
    console.print(text)
    assert "48;2;214;69;65" in console.file.getvalue()


def test_it_fits_a_narrow_terminal_and_says_what_it_leaves_out() -> None:
    text = heat(found(256, 40), None, 80)
    assert "16 more channels" in text.plain
    assert "16 more channels" in plain_heat(found(256, 40), None)
    for segments in (1, 64, 256):
        lines = heat(found(max(8, segments)), WINDOW, 80).plain.splitlines()
        assert max(len(line) for line in lines) <= 80
    cells = [span.style.bgcolor.triplet for span in text.spans if getattr(span.style, "bgcolor", None)]
    assert cells[0].red > cells[1].red, "the one piece that matters is not lost among those it shares a place with"


def test_a_record_has_fields_and_figures_and_no_time() -> None:
    effects = np.array([[0.25, -3.5, 0.0]], np.float32)
    wire = local_pb2.Explanation(
        prediction_id=7, method="occlusion", segments=1, channels=3, effect=effects[0].tolist(), output="po2",
        unit="mm[Hg]", fields=["age", "lactate", "pulse"],
    )  # fmt: skip
    told = explanation_of(wire)
    lines = plain_heat(told, WINDOW).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["age", "lactate", "pulse"]
    assert [line.split()[-1] for line in lines[1:4]] == ["+0.250", "-3.500", "+0.000"]
    assert lines[4].startswith("strongest -3.500 mm[Hg]; ")
    assert len(lines) == 5, "no axis of time"
    coloured = heat(told, WINDOW, 80).plain.splitlines()
    assert [line.split()[0] for line in coloured[1:4]] == ["age", "lactate", "pulse"]
    assert coloured[4].startswith("strongest -3.500 mm[Hg] ")
    assert "1.28 s" not in "".join(coloured)


def test_no_effect_at_all_divides_by_nothing() -> None:
    assert "channel 0" in plain_heat(Explanation(1, "occlusion", np.zeros((4, 1), np.float32)), None)
