"""heart_disease: four hospitals, FLamby's selection and split, logistic regression on 13 features.

The federation normalises by its own moments: one round brings them together, then only the layer behind is trained.
FLamby's pooled score is made in the same way; its client scores use each hospital's own statistics (du Terrail et al.
2022, FLamby, section 4 and the data set's code).
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from fleets.data import HOSPITALS, heart_rows

from bedside.authoring.simulation.settings import Settings
from bedside.ondevice.training.examples import Windows

from .compared import Rows, alone, federated, hurried, pooled
from .metrics import accuracy
from .study import Held, Study, build

FEATURES = 13
RECIPE = {
    "name": "heart",
    "version": "1",
    "task": "multilabel",
    "labels": ["narrowed"],
    "layers": [{"kind": "standardise", "scope": "shared"}, {"kind": "flatten"}, {"kind": "dense", "units": 1}],
    "suffixes": [{"name": "net", "first_layer": 1}],
    "graphs": [
        {"level": "Q1", "suffix": "all", "optimiser": "sgd"},
        {"level": "Q1", "suffix": "net", "optimiser": "sgd"},
    ],
    "window": {
        "stream": "heart",
        "fields": [f"f{at}" for at in range(FEATURES)],
        "channels": FEATURES,
        "rate_hz": 1.0,
        "length": 1,
        "hop": 1,
        "offset": [54.0, 0.0, 130.0, 240.0, 0.0, 140.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        "scale": [0.1, 1.0, 0.05, 0.01, 1.0, 0.04, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    },
    "training": {"learning_rate": 0.02, "momentum": 0.0, "batch": 32, "epochs": 10},
}
MOMENTS = Settings(rounds=1, steps=1, learning_rate=1e-9, weighting="examples", clip=6.0)
SETTINGS = Settings(
    rounds=20,
    steps=10,
    final_learning_rate=0.0001,
    graph="q1-net-sgd",
    server="fedyogi",
    server_learning_rate=0.03,
    weighting="uniform",
    clip=0.1,
)


def load(root: Path, seed: int) -> Study:
    """The study with one seed.

    Raises:
        FileNotFoundError: the set is not there.
    """
    split: dict[str, list[bool]] = {name: [] for name in HOSPITALS}
    with (root / "heart_disease" / "flamby_split.csv").open() as file:
        for row in csv.DictReader(file):
            split[row["center"]].append(row["split"] == "train")
    clients, held = {}, []
    window = RECIPE["window"]
    offset, scale = np.array(window["offset"]), np.array(window["scale"])
    for name in HOSPITALS:
        rows, train = heart_rows(root, name), np.array(split[name])
        x = (((rows[:, :-1] - offset) * scale)[:, np.newaxis, :]).astype(np.float32)
        y = (rows[:, -1:] > 0).astype(np.float32)
        clients[name] = Windows(x[train], y[train])
        held.append(Held(name, Windows(x[~train], y[~train])))
    return Study(build(RECIPE, seed), clients, held, SETTINGS, accuracy, MOMENTS)


def rows(root: Path, seed: int, *, quick: bool) -> Rows:
    """What comes of it, with one seed."""
    folds = hurried([load(root, seed)], quick=quick)
    return federated(folds, seed) | {"pooled": pooled(folds, seed, at_home=False), "alone": alone(folds, seed)}
