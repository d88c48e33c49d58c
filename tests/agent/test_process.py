"""The agent as a process, with no coordinator anywhere: it predicts, says how it is, and loses nothing."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bedside.agent.health.runs import RunNote

LIMITS = {"litert": (80, 40), "onnx": (110, 50)}
"""Megabytes that an agent with one source and one model may have: resident, and of those its own."""

LIBRARIES = {"litert": "libpywrap_litert", "onnx": "onnxruntime_pybind11"}


def test_predictions_appear_without_a_coordinator(running) -> None:
    found = running.predictions()
    assert [p["id"] for p in found] == list(range(found[0]["id"], found[0]["id"] + len(found)))
    assert {p["stream"] for p in found} == {"wrist"}
    assert {p["label"] for p in found} <= {"rest", "walk", "shake"}
    assert all(p["end_ns"] - p["start_ns"] == 640_000_000 for p in found)
    assert len({p["model"] for p in found}) == 1


def test_following_begins_with_what_is_stored_and_skips_nothing(running) -> None:
    command = [sys.executable, "-m", "bedside.service", "agent", "predictions", str(running.path)]
    follower = subprocess.Popen([*command, "--limit", "3", "--follow", "--json"], stdout=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    try:
        ids = [json.loads(follower.stdout.readline())["id"] for _ in range(60)]
    finally:
        follower.send_signal(signal.SIGINT)
        follower.stdout.close()
        follower.wait(10)
    assert ids == list(range(ids[0], ids[0] + 60))


def test_health_is_degraded_by_the_link_alone(running) -> None:
    done = running.call("health", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["state"]) == (1, "degraded")
    unwell = [name for name, component in answer["components"].items() if component["state"] != "ok"]
    assert unwell == ["link"]
    assert "enrol" in answer["sentence"]


def test_health_of_an_agent_that_is_not_running_is_critical_and_says_so(device) -> None:
    done = device.call("health")
    assert done.returncode == 2
    assert done.stdout.startswith("FAILED no agent serves")
    status = device.call("status")
    assert status.returncode != 0
    assert "bedside agent run" in status.stderr


def test_status_streams_and_sessions_tell_what_the_agent_does(running) -> None:
    status, streams = running.look("status"), running.look("streams")
    assert (status["site"], status["streams"], status["inference"]) == ("not enrolled", 1, "ok: serves")
    assert status["predictions"] > 0
    assert [(s["stream"], s["rate_hz"], s["dropped_blocks"]) for s in streams] == [("wrist", 50.0, 0)]
    # The recording begins again and again: between two of its sessions none is open.
    running.await_value(lambda: sum(s["session"] == "open" for s in running.look("streams")), lambda n: n == 1)
    running.await_value(lambda: sum(s["closed_ms"] is None for s in running.look("session", "list")), lambda n: n == 1)
    sessions = running.look("session", "list")
    assert [s["closed_ms"] is None for s in sessions].count(True) <= 1
    assert all(re.fullmatch("[a-z2-7]{16}|[0-9a-f]{16,32}", s["session"]) for s in sessions)


def test_a_second_agent_on_the_same_socket_ends_with_one_line(running) -> None:
    done = running.call("run")
    assert done.returncode != 0
    assert f"an agent already runs in {running.path}" in done.stderr
    assert "[agent-running]" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert running.process.poll() is None
    assert running.await_predictions(running.predictions(1)[-1]["id"]) > 0


def test_debug_reaches_the_process_that_the_command_becomes(running) -> None:
    command = [sys.executable, "-m", "bedside.service", "--debug", "agent", "run", str(running.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "Traceback" in done.stderr
    assert f"an agent already runs in {running.path}" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("runtime", LIMITS)
def test_the_process_stays_small_and_has_one_runtime(device, runtime, capsys) -> None:
    device.use_runtime(runtime)
    device.start()
    device.await_predictions(100)
    folder = Path(f"/proc/{device.process.pid}")
    rollup, mapped = (folder / "smaps_rollup").read_text(), (folder / "smaps").read_text()
    rss_mb, anonymous_mb = (
        int(re.search(rf"^{name}:\s+(\d+) kB", rollup, re.MULTILINE)[1]) * 1024 / 1e6 for name in ("Rss", "Anonymous")
    )
    with capsys.disabled():
        print(f"\nagent with one source and one model, {runtime}: {rss_mb:.0f} MB RSS, {anonymous_mb:.0f} MB anonymous")
    assert {name for name, library in LIBRARIES.items() if library in mapped} == {runtime}
    assert f"runtime={runtime}" in (device.path / "log.txt").read_text()
    assert "libcrypto" not in mapped, "what only the command line needs stays behind with it"
    assert not psutil.Process(device.process.pid).children()
    most_rss_mb, most_anonymous_mb = LIMITS[runtime]
    assert rss_mb < most_rss_mb
    assert anonymous_mb < most_anonymous_mb


def test_the_faster_runtime_is_found_by_measuring_and_noted(running) -> None:
    (note,) = (running.path / "state" / "models" / "bundles").glob("*.runtime.json")
    choice = json.loads(note.read_text())
    by_name = {measured["runtime"]: measured["median_us"] for measured in choice["measured"]}
    assert set(by_name) == set(LIBRARIES)
    assert choice["runtime"] == min(by_name, key=by_name.get)


def test_sigterm_ends_it_within_five_seconds_and_commits_what_it_told(device) -> None:
    device.start()
    device.await_predictions()
    told = device.look("status")["predictions"]
    assert device.stop() == 0
    found = device.predictions()
    assert len(found) >= told
    assert RunNote(device.path / "state").last_exit == "clean"
    assert "Traceback" not in (device.path / "log.txt").read_text()


def test_after_kill_9_the_stored_predictions_are_there_and_the_ids_go_on(device) -> None:
    device.start()
    device.await_predictions(30)
    acknowledged = device.predictions()
    device.stop(signal.SIGKILL)
    assert RunNote(device.path / "state").last_exit == "killed"
    before = len(device.predictions())
    device.start()
    device.await_predictions(before + 30)
    note = RunNote(device.path / "state")
    assert device.stop() == 0
    found = device.predictions()
    assert found[: len(acknowledged)] == acknowledged
    assert [p["id"] for p in found] == list(range(1, len(found) + 1))
    starts = [p["start_ns"] for p in found]
    assert starts == sorted(set(starts))
    assert note.restarts == 1
