"""Bits per parameter against accuracy, on real data, beside plain float FedAvg and FedAdam.

    .venv/bin/python benchmarks/compression.py            # tables; about three minutes
    .venv/bin/python benchmarks/compression.py --json --quick

Four hospitals (heart, softmax regression) and 21 people (har, one hidden layer) train in rounds. Every configuration
of the codec (8, 6, 4 bits; rotation on and off; all, 1/4 and 1/8 of the coordinates) runs with the seeds of the float
run beside it, so that differences are paired. Float neither clips nor rounds. Bits per parameter are those of the
packed upload in the narrowest ring that holds the sum, counts and padding included.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import itertools
import statistics
from dataclasses import dataclass

import numpy as np
from fleets.data import LOADERS, DataSet, data_root
from fleets.models import Net, Schedule, train
from fleets.rounds import Codec, Contribution, float_cohort, open_cohort, round_seed, upload_bits
from report import Figure, arguments, emit, figure, table

from bedside.core.learning.combiners import Combiner
from bedside.core.learning.optimisers import FedAdam, FedAvg, ServerOptimiser
from bedside.core.learning.weighting import Weighting

BITS = (8, 6, 4)
SHARES = {1.0: "all", 0.25: "1/4", 0.125: "1/8"}
HALF_A_POINT = -0.5
OPTIMISERS = ("fedavg", "fedadam")


@dataclass(frozen=True)
class Setting:
    """How one set is trained.

    Attributes:
        hidden: units of the hidden layer.
        schedule: local training.
        rounds: of one run.
        clip: L2 bound, two to three times the norm of a weighted delta in the first round.
        block: words of a rotation block; the 28 parameters of heart would drown in the coordinator's 1,024.
        adam_rate_e6: of the server.
        runs_factor: heart is small and noisy, and takes a tenth of the time.
    """

    hidden: int
    schedule: Schedule
    rounds: int
    clip: float
    block: int
    adam_rate_e6: int
    runs_factor: int


SETTINGS = {
    "heart": Setting(0, Schedule(1, 16, 0.05), 30, 0.5, 32, 10_000, 4),
    "har": Setting(32, Schedule(2, 16, 0.1), 30, 2.0, 1_024, 20_000, 1),
}


def run(data: DataSet, setting: Setting, optimiser: ServerOptimiser, codec: Codec | None, seed: int) -> float:
    """Pooled held-out accuracy after all rounds."""
    net = Net(data.features, setting.hidden, data.classes)
    cap = max(len(group.train.y) for group in data.groups)
    rng = np.random.default_rng(seed)
    parameters = net.create(rng)
    state = optimiser.initial_state(parameters)
    for number in range(setting.rounds):
        sent = [
            Contribution(train(parameters, group.train, setting.schedule, rng), len(group.train.y))
            for group in data.groups
        ]
        if codec is None:
            opened = float_cohort(sent, cap)
        else:
            opened = open_cohort(sent, codec.layout(parameters, cap), round_seed(seed, number), cap)
        delta = Combiner().combine([opened], Weighting.EXAMPLES, cap)
        parameters, state = optimiser.step(parameters, delta, state)
    return net.accuracy(parameters, data.pooled)


def optimiser_of(name: str, setting: Setting) -> ServerOptimiser:
    """The server's."""
    return FedAvg() if name == "fedavg" else FedAdam(setting.adam_rate_e6)


def measure(data: DataSet, runs: int, rounds: int | None) -> list[dict[str, object]]:
    """One row for each optimiser and configuration; differences in points, over the same seeds."""
    setting = SETTINGS[data.name]
    if rounds is not None:
        setting = Setting(**{**setting.__dict__, "rounds": rounds})
    seeds = range(runs * setting.runs_factor)
    parameters = Net(data.features, setting.hidden, data.classes).create(np.random.default_rng(0))
    size = sum(tensor.size for tensor in parameters.values())
    cap = max(len(group.train.y) for group in data.groups)
    rows: list[dict[str, object]] = []
    for name in OPTIMISERS:
        optimiser = optimiser_of(name, setting)
        plain = [100 * run(data, setting, optimiser, None, seed) for seed in seeds]
        rows.append(_row(data.name, name, None, 32.0, plain, plain))
        for bits, rotated, share in itertools.product(BITS, (True, False), SHARES):
            codec = Codec(setting.clip, bits, setting.block if rotated else 0, share)
            got = [100 * run(data, setting, optimiser, codec, seed) for seed in seeds]
            sent_bits = upload_bits(codec.layout(parameters, cap), len(data.groups)) / size
            rows.append(_row(data.name, name, codec, sent_bits, got, plain))
    return rows


def _row(
    data: str, optimiser: str, codec: Codec | None, sent_bits: float, got: list[float], plain: list[float]
) -> dict[str, object]:
    apart = [one - other for one, other in zip(got, plain, strict=True)]
    error = statistics.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else 0.0
    return {
        "set": data,
        "optimiser": optimiser,
        "bits": codec.bits if codec else 32,
        "rotation": bool(codec and codec.rotation_block),
        "share": SHARES[codec.subsample] if codec else "all",
        "bits_per_parameter": round(sent_bits, 2),
        "accuracy": round(statistics.fmean(got), 2),
        "spread": round(statistics.stdev(got), 2) if len(got) > 1 else 0.0,
        "difference": round(statistics.fmean(apart), 2),
        "standard_error": round(error, 2),
        "seeds": len(got),
    }


def name_of(row: dict[str, object]) -> str:
    """Stable name of a figure."""
    rotation = "rotated" if row["rotation"] else "plain"
    share = {"all": "all", "1/4": "quarter", "1/8": "eighth"}[str(row["share"])]
    return f"{row['set']}_{row['optimiser']}_{row['bits']}bit_{rotation}_{share}"


def figures_of(rows: list[dict[str, object]]) -> list[Figure]:
    """A figure for every configuration: points of accuracy above (below) float."""
    figures = []
    for row in rows:
        if row["bits"] == 32:
            continue
        base = next(one for one in rows if one["bits"] == 32 and one["optimiser"] == row["optimiser"])
        half = row["bits"] == 4 and row["rotation"] and row["share"] == "all"
        figures.append(
            figure(
                name_of(row),
                float(str(row["difference"])),
                "points of accuracy, ours - peer",
                ours=row["accuracy"],
                peer=f"float {row['optimiser']}, same seeds",
                peer_value=base["accuracy"],
                goal=HALF_A_POINT if half else None,
                better="higher",
                note=f"{row['bits_per_parameter']} bits per parameter; standard error {row['standard_error']} over "
                f"{row['seeds']} seeds",
            )
        )
    return figures


def missing(name: str, reason: str) -> list[Figure]:
    """The figures of a set that is not here."""
    rows = [
        {"set": name, "optimiser": optimiser, "bits": bits, "rotation": rotated, "share": share}
        for optimiser, bits, rotated, share in itertools.product(OPTIMISERS, BITS, (True, False), SHARES.values())
    ]
    return [figure(name_of(row), None, "points of accuracy, ours - peer", better="higher", note=reason) for row in rows]


def verdicts(rows: list[dict[str, object]]) -> list[str]:
    """Where 4 bits with rotation stay within half a point of float, and where not."""
    told = []
    for row in rows:
        if row["bits"] == 4 and row["rotation"]:
            within = float(str(row["difference"])) >= HALF_A_POINT
            told.append(
                f"{row['set']}, {row['optimiser']}, {row['share']} of the coordinates: 4 bits with rotation "
                f"{'stay within' if within else 'are NOT within'} half a point of float "
                f"({row['difference']:+.2f} ± {row['standard_error']:.2f})"
            )
    return told


def show(rows: list[dict[str, object]]) -> str:
    """The table of one set."""
    heads = ["optimiser", "bits", "rotation", "sent", "bits per parameter", "accuracy %", "spread", "against float"]
    return table(
        heads,
        [
            [
                str(row["optimiser"]),
                "float" if row["bits"] == 32 else str(row["bits"]),
                "" if row["bits"] == 32 else "yes" if row["rotation"] else "no",
                str(row["share"]),
                str(row["bits_per_parameter"]),
                f"{row['accuracy']:.2f}",
                f"{row['spread']:.2f}",
                "" if row["bits"] == 32 else f"{row['difference']:+.2f} ± {row['standard_error']:.2f}",
            ]
            for row in rows
        ],
    )


def main() -> None:
    """Measure and print."""
    asked = arguments(__doc__).parse_args()
    runs = asked.runs or (1 if asked.quick else 10)
    figures: list[Figure] = []
    told: list[str] = []
    detail: list[dict[str, object]] = []
    for name, load in LOADERS.items():
        try:
            data = load(data_root(asked.data))
        except FileNotFoundError as error:
            figures += missing(name, f"real data is not here: {error.filename}")
            continue
        rows = measure(data, runs, 3 if asked.quick else None)
        figures += figures_of(rows)
        told += verdicts(rows)
        detail += rows
        if not asked.json:
            print(f"\n{name}, {rows[0]['seeds']} seeds\n\n{show(rows)}\n")
    if not asked.json:
        print("\n".join(told))
    emit("compression", runs, figures, {"rows": detail, "verdicts": told})


if __name__ == "__main__":
    main()
