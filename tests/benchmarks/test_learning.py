"""The benchmark of learning: it runs, names its figures, and its attacks find members where there are any to find."""

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


def run(sets: str, data: Path) -> dict[str, object]:
    command = [sys.executable, str(ROOT / "benchmarks" / "learning.py"), "--json", "--quick", "--sets", sets]
    done = subprocess.run([*command, "--data", str(data)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not (DATA / "heart_disease").exists(), reason=f"no real data in {DATA}")
def test_a_hurried_run_has_every_figure_and_learns_something():
    told = run("heart", DATA)
    figures = {one["name"]: one["value"] for one in told["figures"]}
    assert {"heart_client_average_accuracy", "heart_pooled_accuracy_4bit", "heart_pooled_accuracy_int8"} <= set(figures)
    assert len(figures) == len(told["figures"])
    assert figures["heart_pooled_accuracy"] > 0.65  # 0.52 is what saying the more frequent answer gives
    assert figures["heart_pooled_accuracy_alone"] == told["detail"]["heart"]["alone"]["pooled"][0]


def test_without_the_data_every_figure_is_there_without_a_value_and_says_why(tmp_path):
    told = run("heart,cinc,har,mitdb,membership", tmp_path)["figures"]
    names = {one["name"] for one in told}
    assert {"cinc_auroc_40", "har_personalised_accuracy", "mitdb_macro_f1", "heart_membership_auc_noise"} <= names
    assert all(one["value"] is None and "real data is not here" in one["note"] for one in told)


@pytest.fixture
def membership(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from learn import membership

    return membership


def test_halves_are_complements_that_take_half_of_every_group(membership):
    from bedside.ondevice.training.examples import Windows

    outcome = np.repeat([0, 1, 0, 1], [11, 5, 20, 8])
    subjects = membership.Subjects(Windows(np.zeros((44, 1, 1), np.float32), outcome), np.repeat([0, 1], [16, 28]))
    seen = membership.halves(subjects, 6, np.random.default_rng(1))
    assert (seen[1::2] == ~seen[::2]).all()
    for group in subjects.groups():
        assert (abs(seen[:, group].sum(axis=1) - len(group) / 2) <= 0.5).all()
    assert len({one.tobytes() for one in seen}) == 6


@pytest.mark.parametrize(("gain", "low", "high"), [(0.0, 0.45, 0.55), (1.0, 0.7, 1.0)])
def test_attacks_find_members_that_are_fitted_better_and_only_those(membership, gain, low, high):
    from learn.metrics import auroc

    random = np.random.default_rng(2)
    people, models = 400, 32
    difficulty = random.normal(0, 3, people)
    first = random.random((models // 2, people)) < 0.5
    seen = np.stack([first, ~first], axis=1).reshape(models, people)
    margins = difficulty + gain * seen + random.normal(0, 0.7, (models, people))
    areas = {
        attack: np.mean([auroc(membership.attacks(margins, seen, one)[attack], seen[one]) for one in range(models)])
        for attack in membership.ATTACKS
    }
    assert low < areas["calibrated"] < high
    assert low < areas["lira"] < high
    assert areas["loss"] < 0.65  # who is easy to fit hides who is fitted


def test_the_area_under_a_curve_counts_ties_half(membership):
    from learn.metrics import auroc

    truth = np.array([True, True, False, False])
    assert auroc(np.array([2.0, 1.0, 1.0, 0.0]), truth) == 0.875
    assert auroc(np.array([1.0, 1.0, 1.0, 1.0]), truth) == 0.5


def test_a_stay_without_a_reading_is_normal_in_all_figures_and_one_with_a_slip_of_the_pen_is_mended(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from learn import cinc_features as stays

    nothing = {name: (np.empty(0), np.empty(0)) for name in (*stays.SERIES, stays.VENTILATED)}
    patient = stays.Stay(65.0, -1.0, -1.0, 3, -1.0)
    found = {one.name: one.scaled for one in stays.features(patient, nothing)}
    assert found["HR/last"] == found["height"] == found["sex"] == found["urine/total"] == 0
    assert found["HR/missing"] > 0 > found["HR/count"]
    minutes, values = stays.plausible("pH", np.arange(4.0), np.array([735.0, 73.5, 7.35, 70_000.0]))
    np.testing.assert_allclose(values, 7.35)
    known = {one.name: one for one in stays.features(patient, nothing | {"pH": (minutes, values)})}
    assert abs(known["pH/mean"].value - 7.35) < 1e-9
    assert known["pH/missing"].scaled < 0
    assert set(known) == set(found)
