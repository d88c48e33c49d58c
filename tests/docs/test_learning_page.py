"""The page on learning shows the options as they are."""

from __future__ import annotations

from pathlib import Path

from bedside.agent.config import TEMPLATE
from bedside.agent.training.gates import COOLER_C, FULLER, QUIETER
from bedside.agent.training.trainer import LOOK_S

PAGE = (Path(__file__).parents[2] / "docs" / "learning.md").read_text()


def test_the_page_shows_the_options_of_training_as_the_template_does() -> None:
    shown = TEMPLATE[TEMPLATE.index("[training]\n") : TEMPLATE.index("[serving]\n")].strip()
    assert shown in PAGE


def test_the_page_shows_the_options_of_what_is_personal_as_the_template_does() -> None:
    assert TEMPLATE[TEMPLATE.index("[personal]") : TEMPLATE.index("[link]\n")].strip() in PAGE


def test_the_page_tells_how_far_past_its_limit_a_gate_opens() -> None:
    assert (COOLER_C, FULLER, QUIETER, LOOK_S) == (5.0, 0.05, 0.75, 5.0)
    for words in ("5 degrees below", "5 points above", "at three quarters", "every five seconds"):
        assert words in PAGE
