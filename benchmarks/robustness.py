"""Compromised sites against the mean, the trimmed mean and the median of site cohorts, on real data.

    .venv/bin/python benchmarks/robustness.py             # tables; about three minutes
    .venv/bin/python benchmarks/robustness.py --json --quick

heart: four hospitals as 11 sites of about 43 patients, three devices each. har: 21 people as 10 sites, two devices
for each person. Every site is a cohort with its own sum; f of them are in the attacker's hands, devices and trustees
alike. All vectors pass the real codec, which clips them to C, and each cohort's sum passes `check_sum`:
nothing here could be told apart by a norm.

sign_flip    each device sends its honest delta backwards, as long as the clip allows, and claims one example
ipm_loud     all send the mean of the honest deltas backwards, as long as the clip allows, and claim one example
ipm_quiet    all send half of the mean of the honest deltas backwards and claim what they have (Xie et al., UAI 2019:
             inner-product manipulation, small enough to pass for a slow site)
label_flip   all train honestly on labels in the reverse order
The attacker knows all honest deltas. The trimmed mean leaves out F cohorts at either end, F chosen before the round.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from fleets.data import LOADERS, DataSet, Examples, data_root
from fleets.models import Net, Schedule, Tensors, train
from fleets.rounds import Codec, Contribution, open_cohort, round_seed
from report import Figure, arguments, emit, figure, table

from bedside.core.learning.combiners import Combiner, CombinerKind
from bedside.core.learning.optimisers import FedAvg
from bedside.core.learning.weighting import Weighting

ATTACKS = ("sign_flip", "ipm_loud", "ipm_quiet", "label_flip")
QUIET = np.float32(-0.5)
Site = list[Examples]
"""The examples of each of a site's devices."""


@dataclass(frozen=True)
class Setting:
    """How one set is trained and attacked.

    Attributes:
        hidden: units of the hidden layer.
        schedule: local training.
        rounds: of one run.
        codec: clip at about twice the norm of an honest weighted delta in the first round.
        trim: F of the trimmed mean.
        attackers: the f that are tried, beside 0; the last is just under half.
        runs_factor: heart is small and noisy, and takes less time.
    """

    hidden: int
    schedule: Schedule
    rounds: int
    codec: Codec
    trim: int
    attackers: tuple[int, ...]
    runs_factor: int


SETTINGS = {
    "heart": Setting(0, Schedule(2, 8, 0.05), 30, Codec(0.3, 8, 32), 3, (1, 3, 5), 3),
    "har": Setting(32, Schedule(2, 16, 0.1), 30, Codec(1.5, 8, 1_024), 3, (1, 3, 4), 1),
}
HEART_SITES = {"cleveland": 4, "hungarian": 4, "switzerland": 1, "va": 2}
HEART_DEVICES = 3
HAR_SITES = 10


@dataclass(frozen=True)
class Attack:
    """Which sites lie, and how."""

    kind: str
    sites: frozenset[int]


def sites_of(data: DataSet, rng: np.random.Generator) -> list[Site]:
    """Split a set into sites of several devices."""
    if data.name == "heart":
        return [site for group in data.groups for site in _wards(group.train, HEART_SITES[group.name], rng)]
    order = rng.permutation(len(data.groups))
    sites: list[Site] = [[] for _ in range(HAR_SITES)]
    for at, person in enumerate(order):
        mine = data.groups[person].train
        half = len(mine.y) // 2
        sites[at % HAR_SITES] += [Examples(mine.x[:half], mine.y[:half]), Examples(mine.x[half:], mine.y[half:])]
    return sites


def _wards(patients: Examples, wards: int, rng: np.random.Generator) -> list[Site]:
    order = rng.permutation(len(patients.y))
    devices = [order[at :: wards * HEART_DEVICES] for at in range(wards * HEART_DEVICES)]
    parts = [Examples(patients.x[mine], patients.y[mine]) for mine in devices]
    return [parts[at : at + HEART_DEVICES] for at in range(0, len(parts), HEART_DEVICES)]


def run(data: DataSet, setting: Setting, combiner: Combiner, attack: Attack, seed: int) -> dict[str, float]:
    """Held-out accuracy after all rounds, pooled and by name."""
    net = Net(data.features, setting.hidden, data.classes)
    rng = np.random.default_rng(seed)
    sites = sites_of(data, rng)
    cap = max(len(device.y) for site in sites for device in site)
    parameters = net.create(rng)
    layout = setting.codec.layout(parameters, cap)
    optimiser = FedAvg()
    for number in range(setting.rounds):
        sent = contributions(parameters, sites, attack, setting, data.classes, rng)
        opened = [open_cohort(cohort, layout, round_seed(seed, number, at), cap) for at, cohort in enumerate(sent)]
        delta = combiner.combine(opened, Weighting.EXAMPLES, cap)
        parameters, _ = optimiser.step(parameters, delta, {})
    return {
        "pooled": net.accuracy(parameters, data.pooled),
        **{name: net.accuracy(parameters, test) for name, test in data.tests.items()},
    }


def contributions(
    parameters: Tensors, sites: Sequence[Site], attack: Attack, setting: Setting, classes: int, rng: np.random.Generator
) -> list[list[Contribution]]:
    """What every site's devices send in one round."""
    sent = []
    for at, site in enumerate(sites):
        flipped = attack.kind == "label_flip" and at in attack.sites
        shown = [Examples(device.x, classes - 1 - device.y) if flipped else device for device in site]
        sent.append([Contribution(train(parameters, one, setting.schedule, rng), len(one.y)) for one in shown])
    if attack.kind == "label_flip" or not attack.sites:
        return sent
    honest = [one for at, site in enumerate(sent) if at not in attack.sites for one in site]
    mean = _mean(honest)
    for at in attack.sites:
        sent[at] = [_lie(attack.kind, one, mean, setting.codec.clip) for one in sent[at]]
    return sent


def _lie(kind: str, own: Contribution, mean: Tensors, clip: float) -> Contribution:
    if kind == "ipm_quiet":
        return Contribution({name: tensor * QUIET for name, tensor in mean.items()}, own.examples)
    backwards = own.delta if kind == "sign_flip" else mean
    return Contribution(_stretched(backwards, -clip), examples=1, weighed=True)


def _mean(sent: Sequence[Contribution]) -> Tensors:
    total = sum(one.examples for one in sent)
    weights = [np.float32(one.examples / total) for one in sent]
    return {
        name: np.sum([one.delta[name] * weight for one, weight in zip(sent, weights, strict=True)], axis=0)
        for name in sent[0].delta
    }


def _stretched(delta: Tensors, norm: float) -> Tensors:
    length = float(np.sqrt(sum(float(np.sum(tensor.astype(np.float64) ** 2)) for tensor in delta.values())))
    factor = np.float32(norm / max(length, 1e-12))
    return {name: tensor * factor for name, tensor in delta.items()}


def combiners_of(setting: Setting) -> dict[str, Combiner]:
    """By name in the figures."""
    return {
        "mean": Combiner(),
        "trimmed_mean": Combiner(CombinerKind.TRIMMED_MEAN, setting.trim),
        "median": Combiner(CombinerKind.MEDIAN),
    }


@dataclass(frozen=True)
class Cell:
    """Accuracy of one configuration over seeds, in percent, by name of the held-out part."""

    data: str
    attack: str
    attackers: int
    sites: int
    combiner: str
    accuracy: dict[str, tuple[float, float]]
    seeds: int

    @property
    def pooled(self) -> float:
        """Mean pooled accuracy."""
        return self.accuracy["pooled"][0]


def measure(data: DataSet, runs: int, setting: Setting) -> list[Cell]:
    """All attacks, numbers of attackers and combiners over the same splits, attackers and seeds."""
    seeds = range(runs * setting.runs_factor)
    sites = {seed: len(sites_of(data, np.random.default_rng(seed))) for seed in seeds}
    cells = []
    wanted = [("none", 0), *((attack, f) for attack in ATTACKS for f in setting.attackers)]
    for (kind, attackers), (name, combiner) in (
        (one, other) for one in wanted for other in combiners_of(setting).items()
    ):
        got = []
        for seed in seeds:
            chosen = np.random.default_rng(1_000 + seed).permutation(sites[seed])[:attackers]
            got.append(run(data, setting, combiner, Attack(kind, frozenset(int(at) for at in chosen)), seed))
        accuracy = {part: _summary([100 * one[part] for one in got]) for part in got[0]}
        cells.append(Cell(data.name, kind, attackers, sites[0], name, accuracy, len(got)))
    return cells


def _summary(values: list[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def figures_of(cells: list[Cell]) -> list[Figure]:
    """Under each attack, the robust combiners beside the mean; without one, what they cost."""
    means = {(cell.attack, cell.attackers): cell for cell in cells if cell.combiner == "mean"}
    figures = []
    for cell in cells:
        if cell.combiner == "mean":
            continue
        peer = means[cell.attack, cell.attackers]
        figures.append(
            figure(
                _name(cell.data, cell.attack, cell.attackers, cell.combiner),
                cell.pooled / peer.pooled,
                "accuracy, ours/peer",
                ours=round(cell.pooled, 2),
                peer="plain mean under the same attack",
                peer_value=round(peer.pooled, 2),
                goal=None,
                better="higher",
                note=f"{cell.attackers} of {cell.sites} sites; pooled accuracy in percent, {cell.seeds} seeds; "
                f"without an attacker the mean has {means['none', 0].pooled:.2f}",
            )
        )
    return figures


def missing(name: str, setting: Setting, reason: str) -> list[Figure]:
    """The figures of a set that is not here."""
    wanted = [("none", 0), *((attack, f) for attack in ATTACKS for f in setting.attackers)]
    return [
        figure(_name(name, attack, f, combiner), None, "accuracy, ours/peer", better="higher", note=reason)
        for attack, f in wanted
        for combiner in ("trimmed_mean", "median")
    ]


def _name(data: str, attack: str, attackers: int, combiner: str) -> str:
    return f"{data}_{attack}_f{attackers}_{combiner}" if attackers else f"{data}_no_attack_{combiner}"


def show(cells: list[Cell]) -> str:
    """Pooled accuracy: a row for each attack and number of attackers, a column for each combiner."""
    rows: dict[tuple[str, int], list[str]] = {}
    for cell in cells:
        mean, spread = cell.accuracy["pooled"]
        line = rows.setdefault((cell.attack, cell.attackers), [cell.attack, f"{cell.attackers} of {cell.sites}"])
        line.append(f"{mean:.1f} ± {spread:.1f}")
    return table(["attack", "sites", "mean", "trimmed mean", "median"], list(rows.values()))


def show_parts(cells: list[Cell]) -> str:
    """Accuracy by hospital, without attackers and with the most."""
    most = max(cell.attackers for cell in cells)
    parts = [part for part in cells[0].accuracy if part != "pooled"]
    chosen = [cell for cell in cells if cell.attackers in (0, most)]
    return table(
        ["attack", "combiner", *parts],
        [
            [cell.attack, cell.combiner.replace("_", " "), *(f"{cell.accuracy[part][0]:.1f}" for part in parts)]
            for cell in chosen
        ],
    )


def verdicts(cells: list[Cell]) -> list[str]:
    """What robustness costs when nobody attacks, and what it saves when nearly half do."""
    found = {(cell.attack, cell.attackers, cell.combiner): cell for cell in cells}
    most = max(cell.attackers for cell in cells)
    plain = found["none", 0, "mean"]
    told = []
    for name in ("trimmed_mean", "median"):
        cost = plain.pooled - found["none", 0, name].pooled
        told.append(
            f"{cells[0].data}: without attackers the {name.replace('_', ' ')} "
            f"{'costs' if cost > 0 else 'gains'} {abs(cost):.2f} points against the mean"
        )
    for attack in ATTACKS:
        scores = ", ".join(
            f"{name.replace('_', ' ')} {found[attack, most, name].pooled:.1f}"
            for name in ("mean", "trimmed_mean", "median")
        )
        told.append(f"{cells[0].data}, {attack} by {most} of {plain.sites} sites: {scores} (from {plain.pooled:.1f})")
    return told


def main() -> None:
    """Measure and print."""
    asked = arguments(__doc__).parse_args()
    runs = asked.runs or (1 if asked.quick else 4)
    figures: list[Figure] = []
    told: list[str] = []
    detail: list[dict[str, object]] = []
    for name, load in LOADERS.items():
        setting = replace(SETTINGS[name], rounds=3, runs_factor=1) if asked.quick else SETTINGS[name]
        try:
            data = load(data_root(asked.data))
        except FileNotFoundError as error:
            figures += missing(name, setting, f"real data is not here: {error.filename}")
            continue
        cells = measure(data, runs, setting)
        figures += figures_of(cells)
        told += verdicts(cells)
        detail += [{**cell.__dict__, "accuracy": _rounded(cell)} for cell in cells]
        if not asked.json:
            print(
                f"\n{name}, pooled accuracy in percent, {cells[0].seeds} seeds, F = {setting.trim}\n\n{show(cells)}\n"
            )
            if len(data.tests) > 1:
                print(f"by hospital, without attackers and with {setting.attackers[-1]}\n\n{show_parts(cells)}\n")
    if not asked.json:
        print("\n".join(told))
    emit("robustness", runs, figures, {"cells": detail, "verdicts": told})


def _rounded(cell: Cell) -> dict[str, list[float]]:
    return {part: [round(value, 2) for value in pair] for part, pair in cell.accuracy.items()}


if __name__ == "__main__":
    main()
