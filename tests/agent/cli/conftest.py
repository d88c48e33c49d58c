"""Commands as they are typed: the device's directory is the first argument after the words of the command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from bedside.service.cli import run

WORDS = {"model", "session", "label", "alarms", "predictions", "quarantine", "sources"}


class Typed:
    """Types commands to the device in a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def call(self, line: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """`session open wrist` becomes `bedside agent session open DIR wrist`."""
        words = line.split()
        count = 2 if words[0] in WORDS and len(words) > 1 and not words[1].startswith("-") else 1
        command = [*words[:count], str(self.path), *words[count:]]
        whole = [sys.executable, "-m", "bedside.service", "agent", *command]
        return subprocess.run(whole, capture_output=True, text=True, timeout=60, input=text)

    def say(self, line: str) -> str:
        """What a command that must succeed prints."""
        done = self.call(line)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    def json(self, line: str) -> object:
        return json.loads(self.say(f"{line} --json"))

    def refused(self, line: str, code: str) -> str:
        """The one line that a command is refused with."""
        done = self.call(line)
        assert done.returncode != 0
        assert f"[{code}]" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def typed() -> Callable[[Path], Typed]:
    return Typed


@pytest.fixture
def said(capsys):
    """Run one command; returns its status, what it printed and what it said."""

    def call(*words: str) -> tuple[int, str, str]:
        status = 0
        with suppress(SystemExit):
            status = run(["agent", *words])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call
