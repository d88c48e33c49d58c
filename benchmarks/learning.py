"""What comes of learning: federations on real sets beside pooled training, each alone, and what others have reached.

    .venv/bin/python benchmarks/learning.py                     # tables; about half an hour on two quiet cores
    .venv/bin/python benchmarks/learning.py --json --quick      # whether it runs
    .venv/bin/python benchmarks/learning.py --sets heart,cinc

Every federation is of the product's own parts in one process: bundles by the author's builder, training by the device's
loop, vectors by the codec, the coordinator's step, int8 by the device's refresh. Each set is trained with float updates
(as a comparison), 8 bits (whose model is also judged in its int8 form) and 4 bits. `real` is the demo, with agents,
trustees and a coordinator; `membership` attacks what is released. Nothing is normalised by pooled statistics.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from fleets.data import data_root
from learn import attacks, cinc, har, heart, mitdb, real, watch
from learn.compared import Rows, mean_and_deviation
from learn.figures import FIGURES, Wanted
from report import Figure, arguments, emit, figure, table

from bedside.core.errors import BedsideError

Job = tuple[str, int]
Found = dict[str, list[Rows]]
SETS: Mapping[str, Callable[..., Rows]] = {
    "har": har.rows,
    "mitdb": mitdb.rows,
    "watch": watch.rows,
    "membership": attacks.rows,
    "cinc": cinc.rows,
    "heart": heart.rows,
    "real": real.rows,
}
"""The longest first."""

SEEDS = (101, 102, 103)
"""Of all figures; recipes were chosen with others, and on training parts."""

ONCE = ("membership", "real")
"""Sets of which one run holds many models."""

PROCESSES = 2


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--sets", help=f"some of {', '.join(SETS)}, with commas [default: all]")
    parser.add_argument("--save", type=Path, help="write the rows of every finished run to this file, as JSON lines")
    asked = parser.parse_args()
    names = asked.sets.split(",") if asked.sets else list(SETS)
    if unknown := set(names) - set(SETS):
        parser.error(f"there is no set {', '.join(sorted(unknown))}")
    seeds = [SEEDS[0] + at for at in range(asked.runs or (1 if asked.quick else len(SEEDS)))]
    found, absent = measure(names, seeds, data_root(asked.data), asked.save, quick=asked.quick)
    if not asked.json:
        for name in found:
            print(f"\n{name}, {len(found[name])} seeds\n\n{show(found[name])}")
        print()
    emit(
        "learning", len(seeds), figures_of(names, found, absent), {name: _detail(rows) for name, rows in found.items()}
    )


def measure(
    names: Sequence[str], seeds: Sequence[int], root: Path, save: Path | None, *, quick: bool
) -> tuple[Found, dict[str, str]]:
    """Rows of every set and seed, and why there are none of a set."""
    jobs = [(name, seed) for name in SETS if name in names for seed in (seeds[:1] if name in ONCE else seeds)]
    rows: dict[Job, Rows] = {}
    absent: dict[str, str] = {}
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_measured, name, seed, root, quick): (name, seed) for name, seed in jobs}
        for done in as_completed(running):
            name, seed = running[done]
            found_rows, spent_s, why = done.result()
            if why:
                absent[name] = f"real data is not here: {why}"
                continue
            rows[name, seed] = found_rows
            print(f"{name}, seed {seed}: {spent_s:.0f} s of CPU", file=sys.stderr)
            if save is not None:
                with save.open("a") as file:
                    file.write(
                        json.dumps({"set": name, "seed": seed, "cpu_s": spent_s, "rows": rows[name, seed]}) + "\n"
                    )
    found = {name: [rows[job] for job in jobs if job[0] == name and job in rows] for name in names}
    return {name: several for name, several in found.items() if several}, absent


def _measured(name: str, seed: int, root: Path, quick: bool) -> tuple[Rows, float, str]:
    """In a process of the pool: rows, seconds of CPU, and why there are none."""
    began = time.process_time()
    try:
        return SETS[name](root, seed, quick=quick), time.process_time() - began, ""
    except FileNotFoundError as error:
        return {}, 0.0, str(error.filename)
    except BedsideError as error:
        if error.code == "demo-data-missing":
            return {}, 0.0, str(error)
        raise RuntimeError(f"{name}: {error}") from None  # ours do not pass between processes


def figures_of(names: Sequence[str], found: Found, absent: Mapping[str, str]) -> list[Figure]:
    """All figures of the sets that were asked for."""
    return [
        _figure(one, found[one.of]) if one.of in found else figure(one.name, None, one.unit, note=absent[one.of])
        for one in FIGURES
        if one.of in names
    ]


def _figure(wanted: Wanted, seeds: Sequence[Rows]) -> Figure:
    mean, deviation = mean_and_deviation([rows[wanted.row] for rows in seeds], wanted.metric)
    spread = seeds[0][wanted.row].get(f"{wanted.metric}_deviation", deviation)
    return figure(
        wanted.name,
        mean,
        wanted.unit,
        deviation=round(spread, 4),
        seeds=len(seeds),
        peer=wanted.peer,
        peer_value=wanted.peer_value,
        goal=wanted.goal,
        better=wanted.better,
        note=f"{wanted.row}, {wanted.metric}",
    )


def _detail(seeds: Sequence[Rows]) -> dict[str, dict[str, list[float]]]:
    """Mean and deviation of everything that was measured."""
    return {
        row: {metric: [round(one, 4) for one in _over(seeds, row, metric)] for metric in figures}
        for row, figures in seeds[0].items()
    }


def _over(seeds: Sequence[Rows], row: str, metric: str) -> tuple[float, float]:
    return mean_and_deviation([rows[row] for rows in seeds], metric)


def show(seeds: Sequence[Rows]) -> str:
    """The table of one set."""
    metrics = list(dict.fromkeys(metric for figures in seeds[0].values() for metric in figures))
    rows = []
    for row, figures in seeds[0].items():
        cells = ["{:.3f} ± {:.3f}".format(*_over(seeds, row, one)) if one in figures else "" for one in metrics]
        rows.append([row, *cells])
    return table(["", *metrics], rows)


if __name__ == "__main__":
    main()
