"""A device's directory may be named from where one stands."""

from __future__ import annotations

from pathlib import Path

from bedside.agent.config import CONFIG_NAME, load_agent_config


def test_paths_of_a_relative_directory_lie_below_it_once(tmp_path, monkeypatch) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / CONFIG_NAME).write_text('state_dir = "state"\nmodel = "tiny.tar"\n')
    monkeypatch.chdir(tmp_path)
    found = load_agent_config(Path("gateway"))
    home = tmp_path / "gateway"
    assert (found.state_dir, found.policy) == (home / "state", home / "policy.toml")
    assert (found.model, found.api.socket) == (str(home / "tiny.tar"), home / "run" / "agent.sock")
