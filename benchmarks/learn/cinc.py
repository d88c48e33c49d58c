"""cinc2012: 4,000 stays in four kinds of intensive care, who dies in hospital; logistic regression on 349 figures.

Two outputs with class weights, since a label of its own has one weight for both of its outcomes: the softmax of two is
the sigmoid of their difference. Stays are the devices': four (one for each kind of unit), or forty.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bedside.authoring.simulation.settings import Settings
from bedside.ondevice.training.examples import Windows

from . import cinc_features
from .compared import Rows, alone, alone_elsewhere, federated, hurried, pooled
from .metrics import auroc, risk
from .study import Held, Study, build

UNITS = {1: "coronary", 2: "cardiac surgery", 3: "medical", 4: "surgical"}
_HELD_OUT = 0.25
_SPLIT_SEED = 2012
MOMENTS = Settings(rounds=1, steps=1, learning_rate=1e-9, clip=30.0)
SETTINGS = Settings(
    rounds=30,
    steps=15,
    learning_rate=0.0017,
    final_learning_rate=0.0,
    graph="q1-net-sgd",
    clip=0.2,
)


def recipe(names: list[str]) -> dict[str, object]:
    """The model on figures of these names, which are scaled before they come."""
    return {
        "name": "cinc",
        "version": "1",
        "labels": ["survived", "died"],
        "class_weights": [1.0, 6.0],
        "layers": [{"kind": "standardise", "scope": "shared"}, {"kind": "flatten"}, {"kind": "dense", "units": 2}],
        "suffixes": [{"name": "net", "first_layer": 1}],
        "graphs": [
            {"level": "Q1", "suffix": "all", "optimiser": "sgd"},
            {"level": "Q1", "suffix": "net", "optimiser": "sgd"},
        ],
        "window": {
            "stream": "stays",
            "fields": names,
            "channels": len(names),
            "rate_hz": 1.0,
            "length": 1,
            "hop": 1,
            "offset": [0.0] * len(names),
            "scale": [1.0] * len(names),
        },
        "training": {"learning_rate": 0.002, "momentum": 0.9, "batch": 32, "epochs": 1},
    }


class Stays:
    """The set, its split, and who has which stay.

    Attributes:
        x: figures, float32 (stays, 1, figures), scaled.
        y: 1 for those who died.
        unit: kind of intensive care, 1 to 4.
        saps: SAPS-I on admission, -1 where unknown; a score of severity to compare with.
        held_out: a quarter of every unit and outcome.
    """

    def __init__(self, root: Path) -> None:
        """Read the set.

        Raises:
            FileNotFoundError: it is not there.
        """
        with np.load(root / "cinc2012" / "set_a.npz", allow_pickle=False) as file:
            events = {name: file[name] for name in ("pat", "minute", "param", "value")}
            static, self.y, self.saps = file["static"], file["death"].astype(np.int64), file["saps1"]
            series = [str(name) for name in file["param_names"]]
        cuts = np.searchsorted(events["pat"], np.arange(len(self.y) + 1))
        rows = []
        for stay, (first, end) in zip(static.tolist(), itertools.pairwise(cuts), strict=True):
            minutes, which, values = (events[name][first:end] for name in ("minute", "param", "value"))
            readings = {
                name: cinc_features.plausible(
                    name, minutes[which == at].astype(np.float64), values[which == at].astype(np.float64)
                )
                for at, name in enumerate(series)
            }
            age, sex, height, unit, weight = stay
            rows.append(cinc_features.features(cinc_features.Stay(age, sex, height, int(unit), weight), readings))
        self.names = [one.name for one in rows[0]]
        self.x = np.array([[[one.scaled for one in row]] for row in rows], np.float32)
        self.unit = static[:, 3].astype(np.int64)
        self.held_out = np.zeros(len(self.y), bool)
        random = np.random.default_rng(_SPLIT_SEED)
        for group in self.groups(np.ones(len(self.y), bool)):
            picked = random.permutation(group)
            self.held_out[picked[: round(_HELD_OUT * len(picked))]] = True

    def groups(self, some: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int64]]:
        """Numbers of some stays, by unit and outcome."""
        return [np.flatnonzero(some & (self.unit == unit) & (self.y == died)) for unit in UNITS for died in (0, 1)]

    def windows(self, picked: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Windows:
        """Some stays as examples."""
        return Windows(self.x[picked], self.y[picked])

    def devices(
        self, some: npt.NDArray[np.bool_], of_a_unit: int, random: np.random.Generator
    ) -> dict[str, npt.NDArray[np.int64]]:
        """Some stays dealt to so many devices of each unit, outcomes evenly."""
        dealt: dict[str, list[int]] = {f"{name}-{at}": [] for name in UNITS.values() for at in range(of_a_unit)}
        for number, group in enumerate(self.groups(some)):
            name = list(UNITS.values())[number // 2]
            for at, stay in enumerate(random.permutation(group)):
                dealt[f"{name}-{at % of_a_unit}"].append(int(stay))
        return {name: np.array(stays) for name, stays in dealt.items()}


def load(stays: Stays, devices: int, seed: int) -> Study:
    """The study with one seed.

    Args:
        stays: the set.
        devices: 4, or a multiple.
        seed: of the initial model, and of who has which stay.
    """
    dealt = stays.devices(~stays.held_out, devices // len(UNITS), np.random.default_rng(seed))
    held = [Held(f"{name}-0", stays.windows(stays.held_out & (stays.unit == unit))) for unit, name in UNITS.items()]
    clients = {name: stays.windows(picked) for name, picked in dealt.items()}
    return Study(build(recipe(stays.names), seed), clients, held, SETTINGS, risk, MOMENTS)


def rows(root: Path, seed: int, *, quick: bool) -> Rows:
    """What comes of it, with one seed."""
    stays = Stays(root)
    four, forty = (hurried([load(stays, devices, seed)], quick=quick) for devices in (4, 40))
    severity = auroc(stays.saps[stays.held_out].astype(np.float64), stays.y[stays.held_out] > 0)
    return (
        federated(four, seed, "4: ")
        | federated(forty, seed, "40: ")
        | {
            "pooled": pooled(four, seed, at_home=False),
            "4: alone": alone(four, seed),
            "40: alone": alone_elsewhere(forty, seed),
            "SAPS-I": {"auroc": severity},
        }
    )
