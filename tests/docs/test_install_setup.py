"""docs/install.md, "Set up": every command, option, status and name that it gives is so."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import click
import pytest

from bedside.agent.cli import first_run
from bedside.agent.doctor import PART
from bedside.agent.setup import joining, token
from bedside.service import systemd
from bedside.service.cli import cli

PAGE = (Path(__file__).parents[2] / "docs" / "install.md").read_text()
SECTION = PAGE.split("\n## Set up\n")[1].split("\n## ")[0]
TYPED = [line[2:] for line in SECTION.splitlines() if line.startswith("# ") and "bedside " in line]
CALLS = sorted(
    {re.sub(r"^.*?\bbedside (?=[a-z])", "", line).partition(" < ")[0] for line in TYPED if "systemctl" not in line}
)


@pytest.mark.parametrize("call", CALLS)
def test_every_command_can_be_typed_as_it_stands(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to where it would begin: its words are read by the command that they are for."""
    words = shlex.split(call)
    command: click.Command = cli
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, words[0]
        command, words = found, words[1:]
    exists = [option for option in command.params if isinstance(option.type, click.Path | click.File)]
    for option in exists:
        monkeypatch.setattr(option, "type", click.STRING)
    command.make_context(command.name, words, resilient_parsing=False).close()


def test_the_section_has_the_commands_of_every_part() -> None:
    for words in ("agent setup", "site init", "site join", "coordinator init", "coordinator install", "doctor"):
        assert any(call.startswith(words) for call in CALLS), words


def test_statuses_names_and_files_are_those_of_the_code() -> None:
    assert f"with {first_run.WAITS_STATUS}\n" in SECTION
    assert f"`{token.CREDENTIAL}`" in SECTION
    assert f"`/{systemd._DROP_INS}/{PART.unit}.service.d/{systemd.PROXY_DROP_IN}`" in SECTION
    assert str(PART.directory) in SECTION


def test_each_line_that_is_shown_is_one_that_set_up_prints() -> None:
    shown = SECTION.split("```text\n")[1].split("```")[0].splitlines()
    source = inspect.getsource(first_run) + inspect.getsource(token) + inspect.getsource(joining)
    for line in shown:
        step, words = line[:12].strip(), line[13:]
        if line.startswith(("Token", "Join")):
            assert line.partition(" [")[0].rstrip(":") in source
            continue
        assert f'self._tell("{step}"' in source, line
        kept = max(re.split(r"\S*[\d.:/]\S*|st-anna|north|bedside-agent", words), key=len).strip(" ,")
        assert kept in source or step == "health", line
