"""uci_har_subset: six activities of 30 people; a small CNN behind each person's own moments.

Two tests. Strangers: the official split by person, 21 people train, 9 are held out; a stranger's device puts in the
moments of its own windows, which need no labels. The same people: the first 70 % of every person's windows of each
activity train, the rest is held out; there a federation's head can be trained further on each device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bedside.authoring.simulation.federation import Federation
from bedside.authoring.simulation.settings import Settings
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.train import Schedule, train

from .compared import Rows, alone, alone_elsewhere, federated, hurried, pooled, sending
from .metrics import accuracy
from .study import Answers, Held, Study, answers, build, federate, judged

CHANNELS: Final = 9
TRAINED_SHARE: Final = 0.7
SETTINGS: Final = Settings(rounds=40, epochs=1, final_learning_rate=0.006, clip=4.0)
ALONE_LEARNING_RATE: Final = 0.05
_HEAD_SEED: Final = 1_000


def _block(filters: int, taps: int) -> list[dict[str, object]]:
    return [
        {"kind": "maxpool"},
        {"kind": "conv1d", "filters": filters, "taps": taps},
        {"kind": "relu"},
        {"kind": "groupnorm", "groups": 1},
    ]


RECIPE: Final = {
    "name": "har",
    "version": "2",
    "labels": ["walking", "upstairs", "downstairs", "sitting", "standing", "laying"],
    "layers": [
        {"kind": "standardise", "scope": "local"},
        {"kind": "conv1d", "filters": 32, "taps": 9, "stride": 2},
        {"kind": "relu"},
        {"kind": "groupnorm", "groups": 1},
        *_block(48, 5),
        *_block(64, 3),
        {"kind": "gap"},
        {"kind": "dense", "units": 6},
    ],
    "window": {
        "stream": "waist",
        "channels": CHANNELS,
        "rate_hz": 50.0,
        "length": 128,
        "hop": 64,
        "offset": [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.8, 0.0, 0.1],
        "scale": [4.0, 4.0, 4.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0],
    },
    "training": {"learning_rate": 0.3, "momentum": 0.9, "batch": 32, "epochs": 1},
}


class People(NamedTuple):
    """The set: windows (n, 128, 9) as the model takes them, activity, person, and whether the person is held out."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    person: npt.NDArray[np.int64]
    stranger: npt.NDArray[np.bool_]

    def windows(self, some: npt.NDArray[np.bool_]) -> Windows:
        """Some of the examples."""
        return Windows(self.x[some], self.y[some])


def read(root: Path) -> People:
    """Read the set.

    Raises:
        FileNotFoundError: it is not there.
    """
    window = RECIPE["window"]
    offset, scale = np.array(window["offset"]), np.array(window["scale"])
    with np.load(root / "uci_har_subset" / "uci_har_subset.npz", allow_pickle=False) as file:
        x = ((file["X"].transpose(0, 2, 1) - offset) * scale).astype(np.float32)
        return People(x, file["y"].astype(np.int64), file["subject"].astype(np.int64), file["is_test"])


def strangers(people: People, seed: int) -> Study:
    """Train on 21 people, judge by nine others."""
    return study(people, ~people.stranger, people.stranger, seed)


def same_people(people: People, seed: int) -> Study:
    """Train on the first windows of everybody, judge by the rest."""
    early = np.zeros(len(people.y), bool)
    for person in np.unique(people.person):
        for activity in np.unique(people.y):
            group = np.flatnonzero((people.person == person) & (people.y == activity))
            early[group[: round(TRAINED_SHARE * len(group))]] = True
    return study(people, early, ~early, seed)


def study(people: People, train_on: npt.NDArray[np.bool_], judge_by: npt.NDArray[np.bool_], seed: int) -> Study:
    """Train on some windows, judge by others, in the order of people."""
    parts = {f"person-{one}": people.person == one for one in np.unique(people.person)}
    clients = {name: people.windows(own & train_on) for name, own in parts.items() if (own & train_on).any()}
    held = [Held(name, people.windows(own & judge_by)) for name, own in parts.items() if (own & judge_by).any()]
    return Study(build(RECIPE, seed), clients, held, SETTINGS, accuracy)


def with_own_heads(study: Study, federation: Federation, seed: int, *, deployed: bool) -> Answers:
    """What the federation's model says when every person's device has trained its last layer further, alone."""
    heads = {}
    for number, (name, windows) in enumerate(study.clients.items()):
        schedule = Schedule(
            learning_rate=0.05,
            momentum=0.9,
            proximal_mu=0.0,
            batch=16,
            epochs=10,
            min_examples=1,
            min_steps=1,
            seed=seed * _HEAD_SEED + number,
            suffix="head",
        )
        heads[name] = train(study.bundle, federation.parameters(name), windows, schedule).state
    return answers(study, heads.__getitem__, deployed=deployed)


def rows(root: Path, seed: int, *, quick: bool) -> Rows:
    """What comes of it, with one seed."""
    people = read(root)
    others = hurried([strangers(people, seed)], quick=quick)
    found = federated(others, seed, "strangers: ") | {
        "strangers: pooled": pooled(others, seed, at_home=True),
        "strangers: alone": alone_elsewhere(others, seed),
    }
    (same,) = hurried([same_people(people, seed)], quick=quick)
    for bits, name in ((0, "float"), (8, "8-bit"), (4, "4-bit")):
        federation = federate(sending(same, bits), seed)
        found[f"same people: federated, {name}"] = accuracy(judged(same, federation))
        own = with_own_heads(same, federation, seed, deployed=False)
        found[f"same people: own heads, {name}"] = accuracy(own)
        if name == "8-bit":
            found["same people: own heads, int8"] = accuracy(with_own_heads(same, federation, seed, deployed=True))
    found["same people: alone"] = alone([same], seed, _by_oneself)
    return found


def _by_oneself(settings: Settings) -> Settings:
    """One person's few windows want smaller batches and steps."""
    return msgspec.structs.replace(settings, batch=16, learning_rate=ALONE_LEARNING_RATE, final_learning_rate=0.001)
