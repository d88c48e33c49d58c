"""`bedside agent check`: one part that fails in a way that nobody thought of never hides another."""

from __future__ import annotations

import json
import sys

import pytest

from bedside.agent.doubts import place_of
from bedside.agent.sources.kind import SourceKind, SourceOptions
from bedside.agent.sources.recordings import replay

DATABASE = """
[[sources]]
kind = "sql"
name = "his"
[sources.options]
url = "postgresql://reader@his.example/x"
query = "SELECT t, v FROM vitals WHERE t > :since ORDER BY t"
watermark = "t"
time_column = "t"
stream = "bed-1"
[sources.options.fields.heart_rate]
code = "hr"
"""
BOARD = """
[[sources]]
kind = "serial"
name = "board"
options = {stream = "b", port = "/dev/x"}
"""


@pytest.fixture
def checked(device, said):
    """Write `agent.toml` and look at it; returns the status and every part by its name."""

    def look(toml: str) -> tuple[int, dict[str, dict[str, object]]]:
        (device.path / "agent.toml").write_text(toml)
        status, out, err = said("check", str(device.path), "--json")
        assert not err
        return status, {one["part"]: one for one in json.loads(out)}

    return look


def test_a_database_without_its_driver_is_told_with_what_to_install(checked, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
    status, found = checked(DATABASE + BOARD)
    assert status == 78
    assert (found["source his"]["code"], found["source board"]["ok"]) == ("extra-missing", True)
    assert found["source his"]["remedy"] == "pip install 'bedside[sql]'"


def test_a_source_that_cannot_be_made_hides_no_other(checked, monkeypatch) -> None:
    def fail(_options: object, _context: object) -> object:
        raise RuntimeError("deep in a library")

    monkeypatch.setattr(replay, "KIND", SourceKind(replay.KIND.options, fail))
    broken = '[[sources]]\nkind = "replay"\nname = "broken"\noptions = {stream = "a", data = "gone.npz"}\n'
    status, found = checked(broken + BOARD)
    assert (status, found["source broken"]["code"], found["source board"]["ok"]) == (78, "source-config", True)
    assert "deep in a library" in str(found["source broken"]["sentence"])


LISTENER = """
[[sources]]
kind = "mllp"
name = "ward"
[sources.options]
listen = "127.0.0.1:2575"
stream = "bed-1"
[sources.options.fields.heart_rate]
code = "HR1"
unit = "/min"
[sources.options.fields.pulse_local]
code = "PR^L"
unit = "/min"
[sources.options.fields.spo2]
code = "150456"
channel = "1"
"""


def test_a_rule_that_shuts_out_known_codes_and_a_code_with_a_caret_are_warned_of(checked) -> None:
    status, found = checked(LISTENER)
    ward = found["source ward"]
    first, second = ward["warnings"]
    assert (status, ward["ok"]) == (0, True), "a warning refuses nothing"
    assert "HR1 alone" in first
    assert "heart_rate_local" in first
    assert "code = 'PR' and system = 'L'" in second
    assert ward["sentence"] == "reads 127.0.0.1:2575, delivers bed-1"


EVERYTHING = """
[link]
enabled = false
[[sources]]
kind = "csv"
name = "lab"
[sources.options]
stream = "bed-1"
path = "lab.csv"
mode = "tail"
time_column = "t"
[sources.options.fields.crp]
code = "crp"
unit = "mg/L"
[[sinks]]
kind = "webhook"
name = "his"
[sinks.options]
url = "https://his.example/in"
streams = ["bed-2"]
[[alarms]]
name = "low"
field = "spo2"
below = 88.0
[[alarms]]
name = "high"
stream = "bed-9"
field = "crp"
above = 88.0
"""


class Away(SourceOptions, frozen=True, kw_only=True):
    """Options of a third party's kind."""

    url: str


def test_what_nobody_delivers_and_a_file_that_is_not_there_are_warned_of(checked, device) -> None:
    (device.path / "policy.toml").unlink(missing_ok=True)
    status, found = checked(EVERYTHING)
    assert (status, found["policy"]["ok"]) == (0, True)
    assert "none is needed" in str(found["policy"]["sentence"])
    assert found["source lab"]["warnings"] == ["there is no lab.csv yet"]
    assert found["sink his"]["warnings"] == ["no source delivers bed-2 (streams here: bed-1)"]
    assert found["sink his"]["sentence"].startswith("sends predictions, alarms of bed-2 to https://his.example/in")
    assert len(found["alarms"]["warnings"]) == 2
    assert "s3cret" not in place_of(Away(name="x", url="https://who:s3cret@his.example/in?token=s3cret"))


def test_a_device_without_a_policy_starts_and_is_told_what_it_misses(checked, device) -> None:
    (device.path / "policy.toml").unlink(missing_ok=True)
    status, found = checked(BOARD)
    (warning,) = found["policy"]["warnings"]
    assert status == 0
    assert "takes part in nothing" in warning
    status, found = checked('model = "bundle"\n' + BOARD)
    assert (status, found["policy"]["code"]) == (78, "config-missing")


def test_every_wrong_alarm_is_named(checked) -> None:
    _, found = checked('[[alarms]]\nname = "one"\n[[alarms]]\nname = "two"\nfield = "spo2"\n')
    assert "alarm one" in found["alarms"]["sentence"]
    assert "alarm two" in found["alarms"]["sentence"]


def test_idle_streams_that_nothing_names_are_warned_of(checked) -> None:
    gates = '[training.gates]\nidle_streams = ["*", "b", "ecg", "ecgg"]\n'
    model = '[[models]]\nbundle = "x.tar"\nstreams = ["ecg"]\n'
    _, found = checked(gates + model + BOARD)
    (warning,) = found["training"]["warnings"]
    assert "names ecgg of training.gates.idle_streams" in warning
    assert "(streams here: b, ecg)" in warning
