"""docs/device.md: typed as it stands it works, and what it shows is what commands print."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from walkthrough import File, Line, Shell, Shown, section_of, shell, steps_of

pytestmark = pytest.mark.system

PAGE = Path(__file__).parents[2] / "docs" / "device.md"
HEADING = "A device on its own"
DEADLINE_S = 60.0
AGAIN = {
    "bedside agent health gateway --wait 60": lambda output: re.search(r"^OK .* [1-9]\d* predictions", output),
    "bedside agent alarms gateway": lambda output: "still" in output,
}
"""What the reader looks at again until it is so."""


def type_line(typed: Shell, command: str) -> str:
    end_s = time.monotonic() + DEADLINE_S
    holds = AGAIN.get(command)
    while True:
        status, output = typed.run(command)
        if status == 0 and (holds is None or holds(output)):
            return output
        assert holds is not None, f"$ {command}\n{output}"
        assert time.monotonic() < end_s, f"$ {command}\n{output}"


def words_of(text: str) -> set[str]:
    """What does not change from run to run: headings, names of fields, tables and panels."""
    headings = set(re.findall(r"\b[A-Z]{2,}\b", text))
    fields = set(re.findall(r"^([a-z]{4,})  ", text, re.MULTILINE))
    panels = set(re.findall(r"╭─ ([a-z]+) ─", text)) | set(re.findall(r"\b(?:wrist|activity|still|channel)\b", text))
    return headings | fields | panels


def test_the_page_is_typed_from_an_empty_folder_to_erasure(tmp_path: Path) -> None:
    output = ""
    with shell(tmp_path, {}) as typed:
        for step in steps_of(section_of(PAGE.read_text(), HEADING)):
            match step:
                case File(name, body):
                    (tmp_path / name).write_text(body)
                case Shown(text):
                    missing = words_of(text) - words_of(output)
                    assert words_of(text), f"nothing in this can be compared:\n{text}"
                    assert not missing, f"{missing} of what the page shows is not in\n{output}"
                case Line(command):
                    output = type_line(typed, command)
    assert (tmp_path / "gateway" / "state" / "buffer.db").exists()


def test_the_page_shows_every_command_of_a_device() -> None:
    from bedside.agent.cli import agent

    text = PAGE.read_text() + PAGE.with_name("learning.md").read_text()
    elsewhere = {"enrol", "renew"}  # in operations.md
    missing = []
    for name, command in agent.commands.items():
        inner = [f"{name} {one}" for one in getattr(command, "commands", {}) if one != "list"] or [name]
        missing += [words for words in inner if name not in elsewhere and f"bedside agent {words}" not in text]
    assert missing == []


def test_the_client_is_shown_in_ten_lines_or_so() -> None:
    snippet = next(step for step in steps_of(section_of(PAGE.read_text(), HEADING))
                   if isinstance(step, File) and step.name == "follow.py")  # fmt: skip
    assert len([line for line in snippet.body.splitlines() if line.strip()]) <= 10
