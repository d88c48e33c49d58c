"""The demo's smartwatch recordings: seven shoulder exercises of ten people, five folds.

The net of the shipped recipe, behind each wearer's own moments, which need no labels. Two people are held out of each
fold. The recordings come with a package of the demo, not in `../shared/data`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from bedside.authoring.recipe import load_recipe
from bedside.authoring.simulation.settings import Settings
from bedside.demo.evaluation import cut_windows
from bedside.demo.recordings import find_watch_file, read_wearers
from bedside.demo.world import SERVER_LEARNING_RATE
from bedside.ondevice.training.examples import Windows

from .compared import Rows, alone_elsewhere, federated, hurried, pooled
from .metrics import accuracy
from .study import Held, Study, build_quickly, opened

HELD_OUT: Final = ((1, 2), (3, 4), (5, 8), (6, 7), (9, 10))
"""Wearers of each fold; the demo's are among them."""

SETTINGS: Final = Settings(rounds=24, server_learning_rate=SERVER_LEARNING_RATE, gradient_clip=2.0)
"""Twice the demo's rounds; the rest is the author's, or the default of `bedside round start`."""

People = dict[int, Windows]


def read() -> People:
    """Windows of every wearer, cut as their device cuts them.

    Raises:
        ConfigError: `demo-data-missing`.
    """
    recipe = load_recipe("watch")
    window, labels = recipe.window_spec(), recipe.labels
    return {one.number: cut_windows([one.recording], window, labels) for one in read_wearers(find_watch_file())}


def folds(people: People, seed: int) -> list[Study]:
    """A study for every pair of wearers."""
    shipped = load_recipe("watch")
    layers = ({"kind": "standardise", "scope": "local"}, *shipped.layers)
    bundle = opened(build_quickly(msgspec.structs.replace(shipped, layers=layers, seed=seed)))
    return [
        Study(
            bundle,
            {f"wearer-{one}": windows for one, windows in people.items() if one not in pair},
            [Held(f"wearer-{one}", people[one]) for one in pair],
            SETTINGS,
            accuracy,
        )
        for pair in HELD_OUT
    ]


def rows(_root: Path, seed: int, *, quick: bool) -> Rows:
    """What comes of it, with one seed."""
    studies = hurried(folds(read(), seed), quick=quick)
    found = federated(studies, seed)
    found["pooled"] = pooled(studies, seed, at_home=True)
    found["alone"] = alone_elsewhere(studies, seed)
    for name, figures in found.items():
        if name.startswith("federated"):
            figures["over_pooled"] = figures["pooled"] / found["pooled"]["pooled"]
    return found
