"""Sinks of a real agent: kill -9 loses and doubles nothing, the commands tell, and without a sink nothing is open."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys

import psutil
import pytest

from ward import Receiver

pytestmark = pytest.mark.system

SINKS = """
[[sinks]]
kind = "webhook"
name = "his"
[sinks.options]
url = "{url}"
within_s = 0.1
subjects = {{ wrist = "Location/bed-4" }}

[[sinks]]
kind = "csv"
name = "files"
[sinks.options]
directory = "out"
within_s = 0.1

[[sinks]]
kind = "fhir"
name = "archive"
[sinks.options]
url = "{url}"
mode = "demand"
"""


@pytest.fixture(scope="module")
def sending(tmp_path_factory: pytest.TempPathFactory, running, tiny, tiny_author):
    """A running device with three sinks, and their receiver."""
    receiver = Receiver()
    made = type(running)(tmp_path_factory.mktemp("sending") / "device", tiny, tiny_author)
    config = made.path / "agent.toml"
    config.write_text(config.read_text() + SINKS.format(url=receiver.url))
    try:
        made.start()
        made.await_predictions()
        yield made, receiver
    finally:
        made.clean_up()
        receiver.stop()


def rows_of(device) -> list[int]:
    path = device.path / "out" / "predictions.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [int(row["number"]) for row in csv.DictReader(file)]


def hooked(receiver) -> dict[str, int]:
    """Numbers by the id of their delivery."""
    posted = [body for body in receiver.bodies() if "items" in body]
    return {item["message_id"]: item["number"] for body in posted for item in body["items"]}


def test_kill_9_in_the_middle_loses_nothing_and_each_row_has_one_id(sending) -> None:
    device, receiver = sending
    newest = device.await_predictions()
    device.await_value(lambda: max(rows_of(device), default=0), lambda number: number >= newest)
    device.stop(signal.SIGKILL)
    device.start()
    last = device.await_predictions(newest)
    device.await_value(lambda: max(rows_of(device), default=0), lambda number: number >= last)
    device.await_value(lambda: max(hooked(receiver).values(), default=0), lambda number: number >= last)
    shown = {row["name"]: row for row in device.look("sinks")}
    stored = {row["id"] for row in device.predictions() if row["id"] <= last}
    assert stored
    written = [number for number in rows_of(device) if number <= last]
    assert sorted(stored) == written, "the file has each row once, in order"
    numbers = [number for number in hooked(receiver).values() if number <= last]
    assert sorted(numbers) == written, "each row has one id"
    assert {name: row["mode"] for name, row in shown.items()} == {
        "his": "continuous", "files": "continuous", "archive": "demand"
    }  # fmt: skip
    assert shown["his"]["sent"] > 0


def test_what_a_sink_would_send_is_shown_and_sent_on_demand(sending) -> None:
    device, receiver = sending
    device.await_predictions(2)

    def call(command: str, *rest: str):
        words = [sys.executable, "-m", "bedside.service", "agent", "sinks", command, str(device.path), *rest]
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    shown = call("preview", "archive", "--limit=2")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count('"resourceType": "Observation"') == 2
    assert "PUT http://localhost" in shown.stdout
    (listed,) = json.loads(call("preview", "archive", "--limit=2", "--json").stdout)
    assert (listed["sink"], listed["text"].count('"resourceType": "Observation"')) == ("archive", 2)
    assert not any(method == "PUT" for method, *_ in receiver.requests)
    sent = call("send", "archive", "--since", "2020-01-01T00:00:00Z")
    assert sent.returncode == 0, sent.stderr
    assert any(method == "PUT" for method, *_ in receiver.requests)
    wrong = call("send", "nobody")
    assert (wrong.returncode, "no-such-sink" in wrong.stderr) == (76, True)


def test_without_a_sink_no_network_socket_is_open(running) -> None:
    process = psutil.Process(running.process.pid)
    assert process.net_connections(kind="inet") == []
    assert running.look("sinks") == []
