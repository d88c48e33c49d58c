"""Commands that change a device: through its agent while it runs, on the file while it does not, never both at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bedside.agent.buffer.configured import open_store
from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.labels import MAX_LABELS
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.config import load_agent_config
from bedside.agent.writer import become_writer
from bedside.core.ids import StreamId
from bedside.core.samples import Record
from bedside.service.platform import SystemClock, SystemEntropy

HELD = """
import sys
from pathlib import Path
from bedside.agent.writer import become_writer
from bedside.service.platform import SystemClock
with become_writer(Path(sys.argv[1]), Path("none"), SystemClock()):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["running", "stopped"])
def both(request, typed):
    """The same commands with the agent and without it."""
    if request.param == "running":
        return typed(request.getfixturevalue("running").path)
    device = request.getfixturevalue("device")
    return typed(device.path)


def reader_of(path: Path) -> BufferReader:
    return BufferReader(path / "state" / "buffer.db", load_key_ring(path / "state" / "identity"))


def test_a_session_is_opened_listed_consented_and_closed(both) -> None:
    opened = both.json("session open bed-4 --no-consent --new")
    assert (opened["stream"], opened["origin"], opened["closed_ns"]) == ("bed-4", "cli", None)
    assert not opened["consent_training"]
    again = both.json("session open bed-4")
    assert not again["consent_training"], "nobody has said otherwise"
    assert both.json(f"session consent {again['session'][:8]} give")["consent_training"]
    again = both.json("session open bed-4")
    assert again["consent_training"], "the configuration's default"
    closed = both.json("session close bed-4")
    assert closed["session"] == again["session"]
    assert closed.pop("next_consent_training")
    found = {one["session"]: one for one in both.json("session list --stream bed-4")}
    assert found[opened["session"]]["closed_ns"] is not None
    assert found[again["session"]] == closed | {"may_be_of": None}
    assert "bed-4" in both.say("session list")
    assert str(both.path) in both.refused("session close bed-4", "no-open-session")
    assert "bed-4" in both.refused("session open bed4 --no-consent", "no-such-stream")
    both.say("session open bed-4 --no-consent")
    assert "another session, without consent to train" in both.say("session close bed-4")
    both.refused("session open BED", "bad-id")
    both.refused("session consent no-such withdraw", "no-such-session")


def test_a_label_is_added_listed_and_withdrawn(both) -> None:
    session = both.json("session open bed-5 --new")
    start_s = session["opened_ns"] // 10**9 + 1
    added = both.json(f"label add bed-5 {start_s} {start_s + 30} af")
    assert (added["origin"], added["session"], added["new"]) == ("cli", session["session"], True)
    assert "it was there already" in both.say(f"label add bed-5 {start_s} {start_s + 30} af")
    assert "contradicts label" in both.call(f"label add bed-5 {start_s} {start_s + 9} sr").stderr
    listed = both.json(f"label list --session {session['session']}")
    assert [one["label"] for one in listed] == ["af", "sr"]
    assert both.json(f"label withdraw {added['id']}")["withdrawn"]
    assert [one["label"] for one in both.json(f"label list --session {session['session']}")] == ["sr"]
    assert "withdrawn" in both.say(f"label list --session {session['session']} --withdrawn")
    both.refused(f"label add bed-5 {start_s} {start_s + 3600} sr", "label-in-future")
    both.refused("label withdraw 99999999", "no-such-label")
    both.refused(f"label add bed-5 1 {start_s} af", "no-session-covers")
    assert "START" in both.call("label add bed-5 yesterday 2 af").stderr


def test_a_file_of_labels_is_imported_as_a_whole_and_once(both, tmp_path) -> None:
    start_ns = both.json("session open bed-6 --new")["opened_ns"]
    lines = "".join(f"{start_ns + at * 10**8},{start_ns + (at + 1) * 10**8},beat-{at % 3}\n" for at in range(200))
    file = tmp_path / "beats.csv"
    file.write_text(f"start_ns,end_ns,label\n{lines}")
    first, second = (both.json(f"label import {file} --stream bed-6") for _ in range(2))
    assert (first["labels"], first["new"], first["names"]) == (200, 200, ["beat-0", "beat-1", "beat-2"])
    assert (second["labels"], second["new"]) == (200, 0)
    file.write_text(f"start_ns,end_ns,label\n{lines}{start_ns + 5},{start_ns},back\n1,2,early\n{start_ns},5,\n3,4,x\n")
    done = both.call(f"label import {file} --stream bed-6")
    assert done.returncode == 65
    named = [line.split(":")[0] for line in done.stderr.splitlines()]
    assert named == [*(f"beats.csv, line {line}" for line in (202, 203, 204, 205)), "error"]
    file.write_text(f"start_ns,end_ns,label\n{start_ns},{start_ns + 1},fresh\n1,2,too early\n")
    assert "beats.csv, line 3: " in both.refused(f"label import {file} --stream bed-6", "bad-labels")
    both.say("session open bed-6")
    assert len(both.json("label list --stream bed-6 --limit 7")) == 7
    labels = both.json("label list --stream bed-6 --limit 1000")
    assert len(labels) == 200, "of a batch with one that is refused, nothing is stored"
    assert {one["origin"] for one in labels} == {"csv:beats.csv"}


def test_a_long_file_of_labels_goes_in_slices_and_still_as_a_whole(both, tmp_path) -> None:
    start_ns = both.json("session open bed-9 --new")["opened_ns"]
    lines = "".join(f"{start_ns + at},{start_ns + at + 1},beat\n" for at in range(MAX_LABELS + 50))
    file = tmp_path / "beats.csv"
    file.write_text(f"start_ns,end_ns,label\n{lines}1,2,early\n")
    assert f"line {MAX_LABELS + 52}: " in both.refused(f"label import {file} --stream bed-9", "bad-labels")
    assert both.json("label list --stream bed-9") == []
    file.write_text(f"start_ns,end_ns,label\n{lines}")
    assert both.json(f"label import {file} --stream bed-9")["new"] == MAX_LABELS + 50
    assert both.json(f"label import {file} --stream bed-9")["new"] == 0


def test_a_session_is_erased_after_a_question_and_what_went_is_told(both) -> None:
    session = both.json("session open bed-7 --new")["session"]
    for text, why in (("n\n", "the answer was no"), ("", "use --yes")):
        asked = both.call(f"forget {session}", text=text)
        assert "nothing was erased" in asked.stderr
        assert why in asked.stderr
        assert asked.returncode == 77
    assert "Erase" not in both.refused("forget nobody", "no-such-session")
    both.say("session open bed-9 --new")
    both.refused(f"label list --session {session} --stream bed-9", "other-stream")
    assert [one["session"] for one in both.json("session list --stream bed-7")] == [session]
    assert both.call(f"forget {session}", text="y\n").stdout.split() == ["TABLE", "ROWS", "ERASED", "sessions", "1"]
    assert session not in both.say("session list")
    both.refused(f"forget {session} --yes", "no-such-session")


def test_who_erases_a_session_is_told_what_else_may_be_of_that_person(device, typed) -> None:
    config, clock, bed = load_agent_config(device.path), SystemClock(), StreamId("bed-7")
    keys = load_key_ring(device.path / "state" / "identity")
    with become_writer(config.state_dir, config.api.socket, clock):
        store = open_store(config, keys, clock, SystemEntropy())

        def say(minutes_ago: float) -> str:
            time_ns = clock.now_ns() - round(minutes_ago * 60e9)
            return store.add_record(Record(bed, time_ns, {"pulse": 60.0}, {"pulse": "/min"}))

        anna = store.sessions.open(bed, clock.now_ns() - round(3_600e9), "adt")
        assert say(59) == anna
        store.sessions.open(bed, clock.now_ns() - round(300e9), "adt")
        say(4)
        late = say(30)  # what Anna's monitor had kept
        store.close()
    agent = typed(device.path)
    assert {one["session"]: one["may_be_of"] for one in agent.json("session list --stream bed-7")}[late] == anna
    assert "MAY BE OF" in agent.say("session list")
    assert agent.say(f"forget {anna} --yes").splitlines()[-1] == f"not erased, and may be of the same person: {late}"
    assert agent.json(f"forget {late} --yes")["may_be_of_the_same_person"] == []
    assert "MAY BE OF" not in agent.say("session list")


def test_the_open_session_of_a_running_stream_is_erased_and_the_stream_goes_on(running, typed) -> None:
    agent = typed(running.path)
    running.await_predictions()
    (session,) = [one["session"] for one in agent.json("session list --stream wrist") if one["closed_ns"] is None][-1:]
    erased = agent.json(f"forget {session} --yes")["erased"]
    assert erased["sessions"] == 1
    newest = running.predictions(1)[-1]["id"] if running.predictions(1) else 0
    running.await_predictions(newest + 40)
    time_ended = time.monotonic() + 30
    while not [one for one in agent.json("session list --stream wrist") if one["closed_ns"] is None]:
        assert time.monotonic() < time_ended
    reader = reader_of(running.path)
    tables = ("blobs", "predictions", "labels", "counters", "sessions", "alarms", "explanations", "records")
    left = {table: reader._rows(f"SELECT count(*) FROM {table} WHERE session = ?", session)[0][0] for table in tables}
    reader.close()
    assert left == dict.fromkeys(tables, 0)


def test_a_session_opened_while_no_agent_runs_is_the_one_that_the_source_begins(device, typed) -> None:
    agent = typed(device.path)
    opened = agent.json("session open wrist --no-consent")
    device.start()
    device.await_predictions()
    assert {one["session"] for one in agent.json("predictions list --limit 100000")} >= {opened["session"]}
    found = agent.json("session list --stream wrist")
    assert found[0]["session"] == opened["session"]
    assert found[0]["closed_ns"] is None or found[0]["closed_ns"] > found[0]["opened_ns"]
    assert not any(one["consent_training"] for one in found), "nobody has said otherwise"


def test_an_alarm_is_acknowledged_while_no_agent_runs(device, typed) -> None:
    agent = typed(device.path)
    agent.say("session open wrist")
    config = load_agent_config(device.path)
    keys = load_key_ring(device.path / "state" / "identity")
    with become_writer(config.state_dir, config.api.socket, SystemClock()):
        store = open_store(config, keys, SystemClock(), SystemEntropy())
        session = store.sessions.current("wrist")
        store.database.run_tx("alarm", lambda tx: tx.execute(
            "INSERT INTO alarms (rule, stream, session, priority, raised_ns, value) VALUES ('fall', 'wrist', ?,"
            " 'high', 1700000000000000000, 0.97)", (session,)
        ))  # fmt: skip
        store.close()
    assert [one["state"] for one in agent.json("alarms list --open")] == ["raised"]
    assert "fall" in agent.say("alarms")
    assert agent.json("alarms ack 1 --by nurse-station-2")["acknowledged_by"] == "nurse-station-2"
    assert "nurse-station-2" in agent.say("alarms")
    second = agent.json("alarms ack 1 --by ward")
    assert (second["acknowledged_by"], second["acknowledged_before"]) == ("nurse-station-2", True)
    assert "it was acknowledged before" in agent.say("alarms ack 1 --by ward")
    agent.refused("alarms ack 2 --by ward", "no-such-alarm")
    assert "--by" in agent.call("alarms ack 1").stderr


RULE = """
[[alarms]]
name = "anything"
label = "walk"
above = 0.05
clear = 0.0
priority = "high"
"""


def test_an_alarm_of_a_running_agent_is_followed_and_acknowledged(device, typed) -> None:
    agent = typed(device.path)
    with (device.path / "agent.toml").open("a") as file:
        file.write(RULE)
    device.start()
    device.await_predictions()
    command = [sys.executable, "-m", "bedside.service", "agent", "alarms", "follow", str(device.path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        raised = json.loads(follower.stdout.readline())
        assert (raised["rule"], raised["priority"], raised["state"]) == ("anything", "high", "raised")
        seen = agent.json(f"alarms ack {raised['id']} --by nurse-station-2")
        assert seen["id"] == raised["id"]
        assert seen["state"] in {"seen, lasts", "closed"}, "its session may have ended since"
        changes = (json.loads(line) for line in follower.stdout)
        assert next(one for one in changes if one["acknowledged_by"])["id"] == raised["id"]
        follower.terminate()
    assert "nurse-station-2" in agent.say("alarms")


def test_a_command_waits_for_another_that_writes(device, typed) -> None:
    agent = typed(device.path)
    state = str(device.path / "state")
    command = [sys.executable, "-c", HELD, state]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        line = [sys.executable, "-m", "bedside.service", "agent", "session", "open", str(device.path), "ecg", "--new"]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(3)
            other.stdin.close()
            assert waiting.wait(30) == 0
            waiting.communicate()
    assert len(agent.json("session list")) == 1
