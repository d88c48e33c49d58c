"""The README's first commands do what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MAX_LINES = 90


def test_the_readme_opens_with_the_two_commands():
    block = README.read_text().split("```console\n")[1].split("```")[0]
    assert [line.split("#")[0].strip() for line in block.strip().splitlines()] == ["$ make demo", "$ make test"]


def test_every_bedside_command_of_the_readme_runs(tmp_path):
    commands = re.findall(r"^\$ bedside (.*?)(?:\s+#.*)?$", README.read_text(), re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        words = [sys.executable, "-m", "bedside.service", *command.split()]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"bedside {command}: {done.stderr}"
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"root", "ward-a", "hub", "gateway"}


def test_the_promise_stands_in_its_exact_words():
    promise = (
        "If a site's own trustee is honest and not rolled back, then for each set it approves the coordinator, every "
        "other trustee and every other site together learn only the sum, plus noise, over that set's honest devices, "
        "and the set holds at least N devices of sites that the site named."
    )
    assert promise in README.read_text()


def test_the_readme_is_short_and_links_every_page() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    links = set(re.findall(r"\]\(([^)#]+)", text))
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - links == set()
    assert {one for one in links if not (ROOT / one).exists()} == set()


def test_the_rooms_of_the_agent_are_those_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    agent = ROOT / "agent" / "bedside" / "agent"
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    named = {room for row in rows for room in re.findall(r"`(\w+)/`", row[0])}
    assert named == {path.parent.name for path in agent.glob("*/__init__.py")}
    for row in rows:
        for inner in re.findall(r"`(\w+)/`", row[1]):
            assert (agent / re.findall(r"`(\w+)/`", row[0])[0] / inner).is_dir(), inner
    for named_file in re.findall(r"`(core/\w+)`", text):
        root, _, folder = named_file.partition("/")
        assert (ROOT / root / "bedside" / root / folder).is_dir()
