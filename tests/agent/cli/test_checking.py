"""`bedside agent check`: one part that fails in a way that nobody thought of never hides another."""

from __future__ import annotations

import json
import sys

import pytest

from bedside.agent.sources.kind import SourceKind
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
        status, out, _ = said("check", str(device.path), "--json")
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
