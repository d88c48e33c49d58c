"""Who is attacked: models of two sets as they would be released, with noise and without, and overfitted ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from bedside.authoring.simulation.settings import Settings
from bedside.core.bundle.verify import Bundle
from bedside.core.privacy import multiplier_e6
from bedside.core.privacy.accounting import rho_of, zcdp_epsilon

from . import cinc, heart
from .compared import Rows
from .membership import Bools, Float64, Release, attacked, everybody, released
from .metrics import auroc
from .study import Study, build, federate

DELTA: Final = 1e-3
HEART_MODELS: Final = 64
CINC_MODELS: Final = 32
HEART_DEVICES: Final = 8
CINC_DEVICES: Final = 10
"""Of each hospital, or kind of unit, where noise is added: it hides one device among all."""

HEART_NOISE: Final = Settings(
    rounds=10,
    steps=10,
    learning_rate=0.1,
    final_learning_rate=0.0,
    graph="q1-net-sgd",
    server_learning_rate=2.0,
    weighting="uniform",
    clip=0.05,
    noise_multiplier=4.0,
)
CINC_NOISE: Final = Settings(
    rounds=5,
    steps=15,
    learning_rate=0.0043,
    final_learning_rate=0.0,
    graph="q1-net-sgd",
    server_learning_rate=3.0,
    weighting="uniform",
    clip=0.07,
    noise_multiplier=1.0,
)
_OVERFITTED: Final = Settings(rounds=30, steps=60, learning_rate=0.005, final_learning_rate=0.0, graph="q0-net-adam")
_HIDDEN: Final = ({"kind": "dense", "units": 64}, {"kind": "relu"})
_GRAPHS: Final = (
    {"level": "Q0", "suffix": "all", "optimiser": "adam"},
    {"level": "Q0", "suffix": "net", "optimiser": "adam"},
)


def rows(root: Path, seed: int, *, quick: bool) -> Rows:
    """All attacks on both sets."""
    stays = cinc.Stays(root)
    targets = (
        Target("heart", heart.load(root, seed), heart.RECIPE, HEART_NOISE, HEART_DEVICES, HEART_MODELS, _accuracy),
        Target(
            "cinc", cinc.load(stays, 4, seed), cinc.recipe(stays.names), CINC_NOISE, CINC_DEVICES, CINC_MODELS, _rank
        ),
    )
    found: Rows = {}
    for one in targets:
        found |= _attacked(one._replace(models=4) if quick else one, seed)
    return found


class Target(NamedTuple):
    """A set whose models are attacked.

    Attributes:
        name: of the set.
        study: with four devices, one of each hospital or unit.
        recipe: of its model.
        noisy: settings with noise.
        devices: of each hospital or unit then.
        models: to train for each row.
        quality: of margins and outcomes.
    """

    name: str
    study: Study
    recipe: Mapping[str, object]
    noisy: Settings
    devices: int
    models: int
    quality: Callable[[Float64, Bools], float]


def _attacked(target: Target, seed: int) -> Rows:
    """The model as released; on many devices without and with noise; and one that has learnt its patients by heart."""
    name, study, noisy = target.name, target.study, target.noisy
    assert study.first is not None
    subjects = everybody(study, list(study.clients).index)
    quiet = msgspec.structs.replace(noisy, noise_multiplier=0.0)
    four = msgspec.structs.replace(study.settings, bits=4)
    plain, fitted = study.bundle, _with_hidden(target.recipe, seed)
    releases = (
        Release(name, plain, study.settings, study.first, 1, target.models),
        Release(f"{name}, 4-bit", plain, four, study.first, 1, target.models),
        Release(f"{name}, many devices", plain, quiet, study.first, target.devices, target.models),
        Release(f"{name}, noise", plain, noisy, study.first, target.devices, target.models),
        Release(f"{name}, overfitted", fitted, _OVERFITTED, study.first, 1, max(4, target.models // 4)),
    )
    found = {one.name: attacked(subjects, one, target.quality) for one in releases}
    found[f"{name}, noise"]["epsilon"] = zcdp_epsilon(
        noisy.rounds * rho_of(multiplier_e6(noisy.noise_multiplier)), DELTA
    )
    found[f"{name}, released"] = {"loss": released(study, federate(study, seed).parameters())}
    return found


def _with_hidden(recipe: Mapping[str, object], seed: int) -> Bundle:
    """The recipe with a hidden layer, trained by Adam without rounding."""
    layers = list(recipe["layers"])
    return build({**recipe, "layers": [*layers[:-1], *_HIDDEN, layers[-1]], "graphs": _GRAPHS}, seed)


def _accuracy(margin: Float64, _outcome: Bools) -> float:
    return float((margin > 0).mean())


def _rank(margin: Float64, outcome: Bools) -> float:
    return auroc(np.where(outcome, margin, -margin), outcome)
