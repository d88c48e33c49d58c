"""`bedside agent model`: the same words with an agent and without one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from bedside.agent.config import TEMPLATE, AgentConfig
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.slots import Candidate, Slot, Verdict
from bedside.agent.serving.rules import ServingConfig
from bedside.agent.writer import is_served
from bedside.service.cli import run

PASSED = {"score": "accuracy", "windows": 120, "old": 0.91, "new": 0.93, "at_s": 1_750_000_000}


class Typed:
    def __init__(self, shelf, capsys) -> None:
        self._path, self._capsys = str(shelf.device.path), capsys

    def say(self, *words: str) -> str:
        """What a command that succeeds prints; its folder comes behind its first word or two."""
        status, out, err = self.call(*words)
        assert status == 0, err
        return out

    def json(self, *words: str) -> object:
        return json.loads(self.say(*words, "--json"))

    def refused(self, code: str, *words: str) -> str:
        status, _, err = self.call(*words)
        assert status == 76, "as docs/operations.md says: it is not there, or not its time"
        assert f"[{code}]" in err
        return err

    def call(self, *words: str) -> tuple[int, str, str]:
        first, *rest = words
        status = 0
        with suppress(SystemExit):
            status = run(["agent", "model", first, self._path, *rest])
        printed = self._capsys.readouterr()
        return status, printed.out, printed.err


@pytest.fixture
def typed(shelf, capsys) -> Typed:
    return Typed(shelf, capsys)


def note(shelf, slot: Slot) -> None:
    ModelStore(shelf.device.path / "state").change("tiny", lambda _: slot)


def test_what_serves_and_what_was_decided_is_shown_without_an_agent(shelf, typed) -> None:
    new, other = shelf.scaled(1.01), shelf.scaled(1.02)
    verdict = Verdict(new.name, "passed", "accuracy 0.930 against 0.910 on 120 validation windows", **PASSED)
    note(shelf, Slot(new, previous=shelf.own, candidate=Candidate(other, "held"), verdicts=(verdict,)))
    (listed,) = typed.json("list")
    assert (listed["current"], listed["previous"], listed["stage"]) == (new.name, shelf.own.name, "held")
    assert listed["verdicts"][0]["new"] == 0.93
    shown = typed.say("list")
    for words in ("tiny", new.name[:12], f"{other.name[:12]} (held)", "passed (0.930 against 0.910)"):
        assert words in shown
    shown = typed.say("show", "tiny")
    for words in (shelf.own.name, "promote or reject it", "120 validation windows", "0.910"):
        assert words in shown
    assert typed.json("show", "tiny") == listed
    assert "serving: tiny" in typed.refused("no-such-model", "show", "har")
    typed.refused("no-shadow-run", "shadow", "tiny")


def test_orders_change_what_serves_from_the_next_start_on(shelf, typed) -> None:
    new, other = shelf.scaled(1.01), shelf.scaled(1.02)
    note(shelf, Slot(new, previous=shelf.own, candidate=Candidate(other, "held")))
    assert shelf.own.name in typed.say("rollback", "tiny")
    assert f"model list {shelf.device.path}" in typed.refused("no-previous-model", "rollback", "tiny")
    assert typed.json("accept", "tiny")["current"] == new.name
    typed.refused("nothing-withdrawn", "accept", "tiny")
    promoted = typed.json("promote", "tiny")
    assert (promoted["current"], promoted["previous"], promoted["candidate"]) == (other.name, new.name, "")
    typed.refused("no-candidate", "reject", "tiny")
    note(shelf, Slot(new, candidate=Candidate(other, "gate")))
    assert typed.json("reject", "tiny")["withdrawn"] == [other.name]
    outcomes = [one["outcome"] for one in typed.json("show", "tiny")["verdicts"]]
    assert outcomes == ["rejected"]


def test_a_shell_completes_the_commands_and_the_names_of_models(shelf) -> None:
    for words, offered in (
        ("bedside agent model ", {"list", "show", "rollback", "accept", "promote", "reject", "shadow"}),
        (f"bedside agent model rollback {shelf.device.path} t", {"tiny"}),
    ):
        count = len(words.split()) - (not words.endswith(" "))
        environ = os.environ | {"_BEDSIDE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        code = "import sys; sys.argv = ['bedside']; from bedside.service.cli import cli; cli(prog_name='bedside')"
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
        assert offered <= {word for line in done.stdout.splitlines() for word in line.split(",")}, done.stderr


def test_a_running_agent_rolls_back_and_holds_to_it_through_kill_9(shelf, typed, device) -> None:
    new = shelf.scaled(1.01)
    note(shelf, Slot(new, previous=shelf.own))
    with (device.path / "agent.toml").open("a") as config:
        config.write(SOURCE)
    device.start()
    device.await_predictions()
    assert typed.json("list")[0]["current"] == new.name
    (shown,) = device.look("models")
    assert (shown["digest"], shown["previous"]) == (new.name, shelf.own.name)
    assert typed.json("rollback", "tiny")["current"] == shelf.own.name
    typed.refused("no-previous-model", "rollback", "tiny")
    last = device.predictions(1)[0]["id"]
    device.await_predictions(above=last + 1)
    assert device.predictions(1)[0]["model"] == shelf.own.name
    assert device.stop(signal.SIGKILL) == -signal.SIGKILL
    device.start()
    device.await_value(lambda: is_served(device.path / "run" / "agent.sock"), bool)
    (listed,) = typed.json("list")
    assert (listed["current"], listed["withdrawn"]) == (shelf.own.name, [new.name])
    assert listed["verdicts"][-1]["outcome"] == "rolled-back"
    assert typed.json("accept", "tiny")["current"] == new.name
    top = device.call("top", "--once")
    assert "tiny" in top.stdout, top.stderr
    assert device.stop() == 0


SOURCE = """
[[sources]]
kind = "replay"
name = "wrist"
[sources.options]
stream = "wrist"
data = "signal.npz"
speed = 10.0
loop = true
"""


def test_the_commands_of_the_page_about_learning_work_as_they_stand(shelf, typed) -> None:
    page = (Path(__file__).parents[3] / "docs" / "learning.md").read_text()
    lines = re.findall(r"^\$ bedside agent (model .*)$", page, re.MULTILINE)
    note(shelf, Slot(shelf.scaled(1.01), previous=shelf.own))
    assert len(lines) > 3
    for line in lines:
        with suppress(SystemExit):
            assert run(["agent", *line.replace("gateway", str(shelf.device.path)).split()]) == 0, line
    for command in re.findall(r"^\| `bedside agent model (\w+)`", page, re.MULTILINE):
        assert typed.call(command, "--help")[0] == 0


def test_the_page_about_learning_shows_the_defaults() -> None:
    page = (Path(__file__).parents[3] / "docs" / "learning.md").read_text()
    (shown,) = re.findall(r"^```toml\n(\[serving\]\n.*?)```", page, re.MULTILINE | re.DOTALL)
    assert msgspec.toml.decode(shown, type=AgentConfig).serving == ServingConfig()
    assert shown in TEMPLATE
