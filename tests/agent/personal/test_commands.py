"""The commands and calls about what is personal, with an agent and without."""

from __future__ import annotations

import asyncio
import json
import math
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from bedside.agent.api.personal import PersonalCalls, personal_message, personal_row
from bedside.agent.cli import agent as commands
from bedside.agent.personal.files import Personal, facts_of
from bedside.agent.personal.report import Figures, Report
from bedside.core.errors import ConfigError
from bedside.proto.v1 import local_pb2
from bedside.service.platform import SystemEntropy

REPORT = Report(
    at_s=1_750_000_000,
    sentence="tuned balanced accuracy 0.900 against 0.700: not worse",
    score="balanced accuracy",
    windows=120,
    sessions=3,
    trained_windows=900,
    suffix="head",
    of_all=Figures(0.7, 0.9, 0.2),
    tuned=Figures(0.9, 0.4, 0.15),
    serves=Figures(0.9, 0.3, 0.02),
    used=True,
)


@pytest.fixture
def kept(home):
    """A device that has a tuned head and local moments of its own."""
    (home.device.path / "agent.toml").write_text("[link]\nenabled = false\n[personal]\nfine_tune = true\n")
    bundle = home.active.bundle
    facts = msgspec.structs.replace(
        facts_of("tiny", bundle, home.sessions), base=home.active.name, temperature=1.7, report=REPORT
    )
    head = {name: home.bundle.parameters[name] for name in ("w2", "b2")}
    home.files.write_pending("a", Personal(facts, head), SystemEntropy())
    home.files.adopt("a", "tuned", bundle, home.files.erasures)
    moments = {"mean0": np.zeros(2, np.float32)}
    home.files.write_pending("b", Personal(facts_of("tiny", bundle, home.sessions), moments), SystemEntropy())
    home.files.adopt("b", "local", bundle, home.files.erasures)
    return home


def call(home, *words: str):
    first, *rest = words
    return CliRunner().invoke(commands, ["personal", first, str(home.device.path), *rest])


def test_without_an_agent_the_files_tell_and_are_thrown_away(kept) -> None:
    listed = call(kept, "list").output
    assert all(word in listed for word in ("tiny", "head", "1.70", "0.900 (global 0.700)"))
    shown = call(kept, "show", "tiny").output
    for word in ("mean0", "w2", "120, of 3 sessions", "BALANCED ACCURACY", "0.020", "not worse", "900 windows"):
        assert word in shown
    fields = json.loads(call(kept, "show", "tiny", "--json").output)
    assert fields["report"]["of_all"] == {"score": 0.7, "loss": 0.9, "ece": 0.2}
    assert (fields["fine_tune"], fields["fit_temperature"], fields["temperature"]) == (True, False, 1.7)
    assert not any(session in json.dumps(fields) for session in kept.sessions)
    reset = json.loads(call(kept, "reset", "tiny", "--json").output)
    assert (reset["local"], reset["tuned"], reset["report"]) == ([], [], None)
    assert list(kept.files.all()) == []


def test_the_commands_of_the_page_about_learning_work_as_they_stand(kept) -> None:
    page = (Path(__file__).parents[3] / "docs" / "learning.md").read_text()
    lines = re.findall(r"^\$ bedside agent (personal .*)$", page, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        result = CliRunner().invoke(commands, line.replace("gateway", str(kept.device.path)).split())
        assert result.exit_code == 0, result.output
    told = re.findall(r"`bedside agent personal (\w+)`", page)
    assert set(told) == {"list", "show", "run", "reset"}


def test_an_unknown_model_and_a_run_without_an_agent_are_refused(kept) -> None:
    assert call(kept, "show", "other").exception.code == "no-such-model"
    assert call(kept, "reset", "other").exception.code == "no-such-model"
    assert call(kept, "run", "tiny").exception.code == "agent-not-running"


def test_the_calls_answer_by_the_desk_and_what_is_told_comes_back_from_the_wire(kept) -> None:
    calls = PersonalCalls(kept.desk)
    (message,) = calls.all().models
    again = local_pb2.PersonalModel.FromString(message.SerializeToString())
    assert personal_row(again) == kept.desk.views()["tiny"]
    assert personal_row(again).report == REPORT
    bare = msgspec.structs.replace(REPORT, of_all=Figures(0.1, 2.0), tuned=None, serves=None)
    view = kept.desk.views()["tiny"].__class__("tiny", report=bare, sentence="waits")
    assert personal_row(personal_message(view)) == view
    answer = asyncio.run(calls.reset(local_pb2.ModelRef(name="tiny")))
    assert (answer.name, list(answer.tuned), answer.HasField("report")) == ("tiny", [], False)


@pytest.mark.parametrize(
    "wrong",
    [
        "epochs = 0",
        "learning_rate = nan",
        "every_hours = 0",
        'suffix = ""',
        "min_windows = 0",
        '[[personal.models]]\nname = "a"\nepochs = 0',
        '[[personal.models]]\nname = "a"\n[[personal.models]]\nname = "a"',
    ],
)
def test_numbers_out_of_bounds_are_refused_when_agent_toml_is_read(tmp_path, wrong) -> None:
    from bedside.agent.config import load_agent_config

    (tmp_path / "agent.toml").write_text(f"[personal]\n{wrong}\n")
    with pytest.raises(ConfigError, match="personal") as caught:
        load_agent_config(tmp_path)
    assert caught.value.code == "config-value"


def test_a_report_with_what_is_no_number_is_none() -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        msgspec.structs.replace(REPORT, of_all=Figures(math.nan, 0.0)).__post_init__()
