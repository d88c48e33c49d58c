"""`bedside agent sources` and `check`: how inputs do, what kinds there are, and what would not start."""

from __future__ import annotations

import json
import os

import click
import pytest

from bedside.agent.cli.error_words import error_words
from bedside.agent.cli.glance import Glance, Stored
from bedside.agent.cli.screen import draw
from bedside.agent.cli.source_words import clock_words, source_fields, state_words
from bedside.agent.sinks.registry import BUILT_IN as SINKS
from bedside.agent.sources.registry import BUILT_IN
from bedside.proto.v1.local_pb2 import AgentStatus, SinkStatus, SourceStatus


def test_the_running_agents_sources_are_listed(running, typed) -> None:
    shown = typed(running.path)
    (found,) = shown.json("sources")
    assert (found["source"], found["kind"], found["state"], found["connected"]) == ("wrist", "replay", "running", None)
    assert found["blocks"] > 0
    assert found["samples"] > found["blocks"]
    assert found["unmapped"] == found["errors"] == 0
    assert "REPEATED" in shown.say("sources list")
    status = shown.json("status")
    assert [one["source"] for one in status["sources"]] == ["wrist"]
    assert "wrist (replay, running)" in shown.say("status")


@pytest.mark.parametrize(("noun", "built_in"), [("sources", BUILT_IN), ("sinks", SINKS)])
def test_every_kind_is_taught_with_its_options(said, noun, built_in) -> None:
    status, out, _ = said(noun, "kinds", "--json")
    found = {one["kind"]: one["words"] for one in json.loads(out)}
    assert status == 0
    assert found.keys() >= built_in.keys()
    assert all(words for words in found.values())
    for kind in built_in:
        _, out, _ = said(noun, "kinds", kind, "--json")
        options = json.loads(out)
        assert options
        assert all(one["words"] for one in options)


def test_what_a_kind_needs_is_marked_and_a_wrong_name_guessed(said) -> None:
    _, out, _ = said("sources", "kinds", "replay", "--json")
    required = {one["option"]: one["required"] for one in json.loads(out)}
    assert (required["stream"], required["loop"]) == (True, False)
    found = {one["option"]: (one["form"], one["default"]) for one in json.loads(out)}
    assert found["loop"] == ("true or false", False)
    _, out, _ = said("sources", "kinds", "csv", "--json")
    assert {one["option"]: one["form"] for one in json.loads(out)}["mode"].startswith("one of ")
    status, _, err = said("sources", "kinds", "reply")
    assert status == 78
    assert "did you mean 'replay'?" in err


def test_words_of_a_source() -> None:
    away = SourceStatus(name="w", state="running", connected=False, clock_offset_ms=-1_250)
    assert (state_words(away), clock_words(away)) == ("not connected", "-1.2 s")
    assert state_words(SourceStatus(state="running", connected=True)) == "connected"
    assert state_words(SourceStatus(state="waiting", connected=False)) == "failed, starts again"
    assert clock_words(SourceStatus()) == "-"
    assert clock_words(SourceStatus(clock_offset_ms=-90_000_000)) == "1 d 1 h behind"
    fields = source_fields(SourceStatus(name="w"))
    assert (fields["connected"], fields["clock_offset_ms"], fields["last_seen_age_ms"]) == (None, None, None)


def test_an_error_that_is_over_says_so() -> None:
    fails = SourceStatus(state="waiting", last_error="away: x", last_error_age_ms=40_000, last_seen_age_ms=1)
    assert error_words(fails) == "away: x"
    tries = SourceStatus(state="running", last_error="away: x", last_error_age_ms=40_000, last_seen_age_ms=50_000)
    assert error_words(tries) == "away: x (40 s ago)"
    sent = SinkStatus(state="idle", last_error="away: x", last_error_age_ms=40_000, last_sent_age_ms=10)
    assert error_words(sent) == "away: x (40 s ago, over)"
    assert error_words(SinkStatus()) == ""


def test_top_names_the_sources_of_which_something_is_missing() -> None:
    from rich.console import Console

    status = AgentStatus(
        sources=[
            SourceStatus(name="fine", kind="serial", state="running"),
            SourceStatus(name="ward", kind="mqtt", state="running", connected=False, unmapped=12),
            SourceStatus(name="his", kind="mllp", state="waiting", errors=3, dropped=1),
        ]
    )
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(draw(Glance(0, Stored(), status), 40, 80))
        text = console.export_text()
    assert "ward: not connected, 12 not understood" in text
    assert "his: failed, starts again, 1 dropped, 3 failures" in text
    assert "fine" not in text


def test_a_sound_configuration_is_found_so_beside_its_agent(running, typed) -> None:
    found = typed(running.path).json("check")
    parts = [one["part"] for one in found]
    assert parts == ["identity", "policy", parts[2], "source wrist", "alarms", "training"]
    assert found[2]["part"].startswith("model ")
    assert all(one["ok"] for one in found)


WRONG = """
model = "none.tar"
[[sources]]
kind = "replay"
name = "gone"
options = {stream = "a", data = "gone.npz"}
[[sources]]
kind = "seriall"
name = "typo"
options = {stream = "b", port = "/dev/x"}
[[sources]]
kind = "serial"
name = "sound"
options = {stream = "b", port = "/dev/x"}
[[sinks]]
kind = "webhook"
name = "his"
options = {url = "https://his.example/in", secret = "credential:his"}
[[sinks]]
kind = "webhook"
name = "open"
options = {url = "https://his.example/in", secret = "secret.txt"}
[[sinks]]
kind = "csv"
name = "export"
options = {directory = "out"}
[[sinks]]
kind = "csv"
name = "again"
options = {directory = "./other/../out/"}
[[sinks]]
kind = "webhook"
name = "inline"
options = {url = "https://his.example/in", secret = "hunter2-INLINE"}
[[alarms]]
name = "x"
"""


def test_all_that_is_wrong_is_told_at_once_with_what_to_do(device, said, monkeypatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (device.path / "agent.toml").write_text(WRONG)
    (device.path / "policy.toml").write_text("nonsense = 1\n")
    (device.path / "secret.txt").write_text("s3cret-of-the-sink")
    (device.path / "secret.txt").chmod(0o644)
    before = sorted(device.path.rglob("*"))
    status, out, _ = said("check", str(device.path), "--json")
    assert status == 78
    found = {one["part"]: one for one in json.loads(out)}
    wrong = {part: one["code"] for part, one in found.items() if not one["ok"]}
    assert wrong == {
        "policy": "config-unknown-key",
        f"model {device.path / 'none.tar'}": "model-missing",
        "source gone": "recording-missing",
        "source typo": "source-config",
        "sink open": "secret-mode",
        "sink again": "sink-config",
        "sink inline": "secret-missing",
        "alarms": "alarm-rule",
    }
    assert all(found[part]["remedy"] for part in wrong)
    assert "not visible here" in found["sink his"]["sentence"]
    assert "s3cret" not in out
    assert "hunter2" not in out
    assert "writes the files of sink export" in found["sink again"]["sentence"]
    assert sorted(device.path.rglob("*")) == before
    status, out, _ = said("check", str(device.path))
    assert status == 78
    assert "did you mean 'serial'?" in out


def test_names_of_kinds_are_completed() -> None:
    from bedside.agent.cli.kinds import complete_kinds

    context = click.Context(click.Command("kinds"))
    found = complete_kinds("bedside.agent.sources.registry")(context, click.Argument(["kind"]), "m")
    assert found == ["mllp", "mqtt"]
