"""The benchmarks on real data: stable figures with or without the data, and liars that stay inside the clip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BEDSIDE_DATA", ROOT.parent / "shared" / "data"))
BENCHMARKS = ("compression", "robustness")


def run(name: str, data: Path) -> dict[str, object]:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--json", "--quick", "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", BENCHMARKS)
def test_without_the_data_every_figure_is_there_without_a_value_and_says_why(name, tmp_path):
    told = run(name, tmp_path)
    assert told["benchmark"] == name
    assert len(told["figures"]) > 50
    for figure in told["figures"]:
        assert figure["value"] is None
        assert "real data is not here" in figure["note"]


@pytest.mark.skipif(not (DATA / "heart_disease").exists(), reason=f"no real data in {DATA}")
@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_names_of_figures_are_the_same_with_and_without_the_data(name, tmp_path):
    measured = run(name, DATA)["figures"]
    assert all(figure["value"] is not None for figure in measured)
    assert {one["name"] for one in measured} == {one["name"] for one in run(name, tmp_path)["figures"]}
    assert len({one["name"] for one in measured}) == len(measured)


@pytest.mark.parametrize("kind", ["sign_flip", "ipm_loud", "ipm_quiet"])
def test_a_liar_sends_the_opposite_of_what_is_honest_and_passes_every_check(kind, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import robustness
    from fleets.data import Examples
    from fleets.models import Net
    from fleets.rounds import open_cohort, round_seed

    rng = np.random.default_rng(1)
    sites = [
        [Examples(rng.standard_normal((20, 5)).astype(np.float32), rng.integers(0, 2, 20)) for _ in range(3)]
        for _ in range(4)
    ]
    setting = robustness.SETTINGS["heart"]
    parameters = Net(5, 0, 2).create(rng)
    attack = robustness.Attack(kind, frozenset({2}))
    sent = robustness.contributions(parameters, sites, attack, setting, 2, np.random.default_rng(3))
    honest = robustness.contributions(
        parameters, sites, robustness.Attack("none", frozenset()), setting, 2, np.random.default_rng(3)
    )
    layout = setting.codec.layout(parameters, 20)
    opened = open_cohort(sent[2], layout, round_seed(0, 0, 2), 20)  # raises where a check does not hold
    truth = honest[2] if kind == "sign_flip" else [one for at in (0, 1, 3) for one in honest[at]]
    against = sum(float(np.sum(opened.tensors["w0"] * one.delta["w0"])) for one in truth)
    assert against < 0
    assert opened.examples == (60 if kind == "ipm_quiet" else 3)
    for at in (0, 1, 3):
        np.testing.assert_array_equal(sent[at][0].delta["w0"], honest[at][0].delta["w0"])


def test_the_replay_of_records_names_its_figures_without_the_data(tmp_path):
    told = run("ecg_replay", tmp_path)
    assert {"samples_lost", "beats_not_decided_once", "sensitivity_v"} <= {one["name"] for one in told["figures"]}
    assert all(one["value"] is None and "real data is not here" in one["note"] for one in told["figures"])
