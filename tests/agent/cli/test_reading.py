"""Commands that only look, on an agent that runs: for people, and the same for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture
def agent(running, typed):
    running.await_predictions(10)
    return typed(running.path)


def test_status_tells_of_models_buffer_and_alarms(agent) -> None:
    status = agent.json("status")
    assert [model["model"] for model in status["models"]] == ["tiny"]
    assert set(status["models"][0]["latency_us"]) == {"cut", "wait", "infer", "decide"}
    assert 0 < status["buffer_status"]["bytes"] < status["buffer_status"]["cap_bytes"] == 512 << 20
    assert status["buffer_status"]["file_bytes"] > 0
    assert status["open_alarms"] == 0
    shown = agent.say("status")
    assert "tiny" in shown
    assert "of 512.0 MiB" in shown
    assert "none open" in shown


def test_models_show_how_quick_they_are(agent) -> None:
    (model,) = agent.json("models")
    assert (model["model"], model["stream"], model["error"]) == ("tiny", "wrist", "")
    assert model["latency_us"]["decide"]["p50"] <= model["latency_us"]["decide"]["p99"]
    assert " ms" in agent.say("models")


def test_streams_show_their_quality(agent) -> None:
    (stream,) = [one for one in agent.json("streams") if one["stream"] == "wrist"]
    assert set(stream["quality"]) == {"missing", "flat", "saturated", "out_of_range", "drift_psi"}
    assert "QUALITY" in agent.say("streams")


def test_predictions_are_filtered(agent) -> None:
    found = agent.json("predictions list --limit 5")
    assert [one["id"] for one in found] == sorted(one["id"] for one in found)
    assert {one["model_name"] for one in found} == {"tiny"}
    session = found[-1]["session"]
    assert {one["session"] for one in agent.json(f"predictions --session {session}")} == {session}
    assert {one["session"] for one in agent.json(f"predictions --session {session[:8]}")} == {session}
    assert "it has wrist" in agent.refused("predictions --stream wrsit", "no-such-stream")
    assert f"session list {agent.path}" in agent.refused("predictions --session nope", "no-such-session")
    agent.refused("label list --stream wrsit", "no-such-stream")
    agent.refused("session list --stream wrsit", "no-such-stream")
    assert agent.json("predictions --model other") == []
    assert len(agent.json("predictions --model tiny --stream wrist --limit 3")) == 3
    assert "no predictions yet" in agent.say("predictions --model other")


def test_a_prediction_is_explained_as_a_map_of_channels_and_time(agent) -> None:
    number = agent.json("predictions --limit 1")[0]["id"]
    found = agent.json(f"predictions explain {number} --segments 4")
    assert np.array(found["effects"]).shape == (4, 2)
    lines = agent.say(f"predictions explain {number} --segments 4").splitlines()
    assert lines[0].startswith(f"prediction {number}: ")
    assert [line.split()[1] for line in lines[1:3]] == ["0", "1"]
    agent.refused("predictions explain 99999999", "no-such-prediction")


def test_a_file_is_decided(agent, tmp_path) -> None:
    window = np.random.default_rng(1).standard_normal((32, 2)).astype(np.float32)
    np.save(tmp_path / "window.npy", window)
    np.savetxt(tmp_path / "window.csv", window, delimiter=",")
    answers = [agent.json(f"predict {tmp_path / name}") for name in ("window.npy", "window.csv")]
    assert answers[0]["label"] == answers[1]["label"]
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert "says tiny" in agent.say(f"predict {tmp_path / 'window.npy'}")
    agent.refused(f"predict {tmp_path / 'window.npy'} --model other", "no-such-model")
    np.save(tmp_path / "short.npy", window[:3])
    agent.refused(f"predict {tmp_path / 'short.npy'}", "bad-window")
    np.save(tmp_path / "turned.npy", window.T)
    assert "transposed" in agent.refused(f"predict {tmp_path / 'turned.npy'}", "bad-window")
    np.save(tmp_path / "flat.npy", window.ravel())
    assert "of 1 dimensions" in agent.refused(f"predict {tmp_path / 'flat.npy'}", "bad-window")
    (tmp_path / "words.csv").write_text("a,b\n")
    agent.refused(f"predict {tmp_path / 'words.csv'}", "bad-window-file")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    agent.refused(f"predict {tmp_path / 'objects.npy'}", "bad-window-file")


def test_what_asks_the_agent_says_that_it_does_not_run(device, typed) -> None:
    stopped = typed(device.path)
    for line in ("status", "streams", "models", "top --once", "predictions explain 1", "alarms follow"):
        assert "bedside agent run" in stopped.refused(line, "agent-not-running")


@pytest.mark.parametrize(
    ("typed_words", "offered"),
    [
        ("bedside agent ", {"session", "label", "alarms", "predictions", "forget", "top", "models", "predict"}),
        ("bedside agent session ", {"open", "close", "list", "consent"}),
        ("bedside agent label i", {"import"}),
        ("bedside agent alarms ", {"list", "ack", "follow", "dir"}),
        ("bedside agent predictions ", {"list", "explain", "dir"}),
        ("bedside agent predictions --", {"--limit", "--follow", "--help"}),
        ("bedside agent predictions gateway --", {"--limit", "--follow", "--help"}),
        ("bedside agent predictions e", {"explain"}),
        ("bedside agent top --", {"--once", "--json", "--help"}),
        ("bedside agent session consent d s ", {"give", "withdraw"}),
    ],
)
def test_a_shell_completes_commands_options_and_answers(typed_words, offered) -> None:
    words = typed_words.split()
    environ = os.environ | {
        "_BEDSIDE_COMPLETE": "bash_complete",
        "COMP_WORDS": typed_words,
        "COMP_CWORD": str(len(words) - (not typed_words.endswith(" "))),
    }
    code = "import sys; sys.argv = ['bedside']; from bedside.service.cli import cli; cli(prog_name='bedside')"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert "dir" not in [line.split(",")[0] for line in lines[1:]], "where bash offers folders, it forgets words before"
    found = {word for line in lines for word in line.split(",")}
    assert offered <= found, done.stdout + done.stderr


def test_help_of_a_group_tells_the_options_of_its_plain_form() -> None:
    for group, option in (("predictions", "--limit"), ("alarms", "--open")):
        code = f"from bedside.service.cli import run; run(['agent', '{group}', '--help'])"
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
        assert option in shown
        assert "DIRECTORY | COMMAND" in shown


def test_a_terminal_without_unicode_is_no_defect(agent, monkeypatch) -> None:
    number = agent.json("predictions --limit 1")[0]["id"]
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for line in (f"predictions explain {number}", "top --once", "predictions"):
        assert agent.say(line).isascii()


def test_health_waits_for_an_agent_that_is_not_up_yet(device, typed) -> None:
    assert typed(device.path).call("health --wait 0.5").returncode == 2
    config = device.path / "agent.toml"
    config.write_text(f"{config.read_text()}\n[link]\nenabled = false\n")
    device.start()
    done = typed(device.path).call("health --wait 50")
    assert (done.returncode, done.stdout.split()[0]) == (0, "OK"), done.stdout


def test_a_command_without_a_device_says_how_to_make_one(tmp_path, typed) -> None:
    assert f"bedside agent init {tmp_path}" in typed(tmp_path).refused("status", "config-missing")


def test_every_command_explains_itself_and_reads_have_json() -> None:
    from bedside.agent.cli import agent as group

    def walk(command, words):
        for name, inner in getattr(command, "commands", {}).items():
            yield (*words, name), inner
            yield from walk(inner, (*words, name))

    commands = dict(walk(group, ()))
    assert all(command.help for command in commands.values())
    silent = {("run",), ("renew",), ("sinks", "preview")}  # the last prints what would be sent, as it is
    leaves = {words: one for words, one in commands.items() if not hasattr(one, "commands") and words not in silent}
    without = [words for words, one in leaves.items() if "--json" not in str([p.opts for p in one.params])]
    assert without == []


def test_json_of_a_followed_list_is_a_line_each(agent) -> None:
    command = [sys.executable, "-m", "bedside.service", "agent", "predictions", str(agent.path), "--follow", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        found = [json.loads(follower.stdout.readline()) for _ in range(30)]
        follower.terminate()
    numbers = [one["id"] for one in found]
    assert numbers == list(range(numbers[0], numbers[0] + 30))
