"""The benchmark of installing: what cannot be measured is null and says why, and a run of it gives every figure."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "benchmarks" / "install.py"
OURS = {"agent_deb_mb", "agent_installed_mb", "agent_on_disk_mb", "first_prediction_s", "first_prediction_cpu_s"} | {
    f"agent_{kind}_{time}" for kind in ("install", "version") for time in ("s", "cpu_s")
}
PEERS = ("flwr", "nvflare")
MEASURED = ["download_mb", "installed_mb", "on_disk_mb", "install_s", "install_cpu_s", "version_s", "version_cpu_s"]
OF_PEERS = {f"{peer}_{name}" for peer in PEERS for name in MEASURED}
RATIOS = {f"{name}_per_{peer}" for name in OURS if not name.startswith("first") for peer in PEERS}


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(PROGRAM.parent), *sys.path])
    spec = importlib.util.spec_from_file_location("benchmark_of_installing", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_name(figures: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in figures}


def test_every_figure_stands_beside_its_peer(benchmark_module: ModuleType) -> None:
    found = dict.fromkeys(OURS, 10.0) | dict.fromkeys(OF_PEERS, 40.0)
    figures = by_name(benchmark_module.figures_of(found, {"agent": "", **dict.fromkeys(PEERS, "")}))
    assert figures.keys() == OURS | OF_PEERS | RATIOS
    assert {figures[name]["value"] for name in RATIOS} == {0.25}
    assert figures["agent_installed_mb"]["goal"] == 190
    assert figures["agent_deb_mb_per_flwr"]["peer_value"] == 40.0
    assert "no inference" in figures["first_prediction_s"]["note"]


def test_without_root_the_size_is_there_and_the_rest_says_why(
    benchmark_module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def build(folder: Path, _target: str) -> list[Path]:
        folder.mkdir()
        (folder / "one.deb").write_bytes(b"x" * 2_000_000)
        return [folder / "one.deb"]

    monkeypatch.setattr(benchmark_module.ours, "build_packages", build)
    monkeypatch.setattr(benchmark_module.ours.os, "geteuid", lambda: 1_000)
    found = benchmark_module.measure_ours(tmp_path, 1)
    notes = {"agent": found.pop("note"), "flwr": "no network", "nvflare": ""}
    figures = by_name(benchmark_module.figures_of(found, notes))
    assert figures["agent_deb_mb"]["value"] == 2.0
    for name in (OURS | RATIOS) - {"agent_deb_mb"}:
        assert figures[name]["value"] is None
        assert figures[name]["note"].startswith("only root"), name
    assert figures["flwr_install_s"] == {"name": "flwr_install_s", "value": None, "unit": "s", "note": "no network"}


def test_what_fails_is_told_with_its_words(benchmark_module: ModuleType) -> None:
    run = benchmark_module.ours.run
    with pytest.raises(RuntimeError, match="sh ended with 3: out of paper"):
        run(["sh", "-c", "echo out of paper >&2; exit 3"])


def test_a_size_is_of_files_alone(benchmark_module: ModuleType, tmp_path: Path) -> None:
    for name in ("opt/program", "var/log/apt.log"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x" * 1_000_000)
    (tmp_path / "opt" / "link").symlink_to("program")
    (tmp_path / "opt" / "small").write_bytes(b"x")
    size = benchmark_module.ours.size_of(tmp_path, ["var/log"])
    assert size.files_mb == pytest.approx(1.000_001)
    blocks = [(tmp_path / "opt" / name).stat().st_blocks for name in ("program", "small")]
    assert size.on_disk_mb == pytest.approx(sum(blocks) * 512 / 1e6)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_run_of_it_gives_every_figure() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "--json", "--runs", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = by_name(json.loads(done.stdout.splitlines()[-1])["figures"])
    assert figures.keys() == OURS | OF_PEERS | RATIOS
    for name, one in figures.items():
        assert one["note"] if one["value"] is None else one["value"] > 0, name
    installed_mb = figures["agent_installed_mb"]
    assert installed_mb["value"] is None or installed_mb["value"] <= installed_mb["goal"]
