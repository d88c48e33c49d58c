"""What a training step costs, beside torch and numpy; and an int8 window on each runtime.

    .venv/bin/python benchmarks/training.py --json

The same nets, parameters, batches and SGD with momentum, each in a process of its own on one thread, several times in
turn: CPU milliseconds per step (median), peak resident memory of the process with all that it imports, and how far
parameters are apart after 50 steps on one batch. (Over many batches a sum in another order now and then tips over one
comparison of a maximum, and both go on from there, equally right.) `ours` is what a device runs: a training graph on
the ordinary onnxruntime. torch is the ordinary wheel for CPUs (`make test TORCH=1` installs it). numpy is forward and
backward written by hand.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from learn.study import KEY, build_quickly
from report import Figure, emit, figure, plain_arguments, table
from steps.job import COMPARED, Job

from bedside.authoring.golden import synthetic_windows
from bedside.authoring.initialise import initial_parameters
from bedside.authoring.recipe import Recipe, load_recipe
from bedside.authoring.replaying import replay_in_children
from bedside.authoring.training_graph import build_training_graph
from bedside.core.bundle.parameters import AMAX
from bedside.core.bundle.tensors import decode_tensors, encode_tensors
from bedside.core.bundle.training import ALL, Level, TrainingGraph, optimiser_tensors, suffix_tensors

HERE = Path(__file__).parent
BATCH, BATCHES = 32, 16
MOMENTUM = 0.9
NETS = ("har", "ecg", "mlp")
MLP = (
    {"kind": "flatten"},
    {"kind": "dense", "units": 64},
    {"kind": "relu"},
    {"kind": "dense", "units": 32},
    {"kind": "relu"},
    {"kind": "dense", "units": 6},
)
"""On the windows of har."""
PEERS = {"torch": "torch_step.py", "numpy": "numpy_step.py"}
LEVELS: tuple[Level, ...] = ("Q0", "Q1", "Q2")
GOALS = {"har_step_cpu_ratio_vs_torch": 0.7, "har_rss_ratio_vs_torch": 1 / 3}


def main() -> None:
    """Measure, print, report."""
    parser = plain_arguments(__doc__)
    parser.add_argument("--runs", type=int, default=5, help="times that every process is measured")
    parser.add_argument("--quick", action="store_true", help="one run of few steps: whether it works")
    told = parser.parse_args()
    runs, steps = (1, 20) if told.quick else (told.runs, 300)
    figures: list[Figure] = []
    detail: dict[str, object] = {}
    for name in NETS:
        with tempfile.TemporaryDirectory(prefix="bedside-steps-") as folder:
            measured = measure_net(recipe_of(name), Path(folder), runs, steps)
        detail[name] = measured
        figures += step_figures(name, measured)
        if not told.json:
            print(f"\n{name}, batch {BATCH}\n{step_table(measured)}")
    for name in ("har", "ecg"):
        figures += window_figures(name)
    if not told.json:
        print("\n" + "\n".join(f"{one['name']}: {one['value']} {one['unit']}" for one in figures))
    emit("training", runs, figures, detail)


def recipe_of(name: str) -> Recipe:
    """A shipped recipe, or the plain net beside them."""
    return msgspec.structs.replace(load_recipe("har"), layers=MLP) if name == "mlp" else load_recipe(name)


def measure_net(recipe: Recipe, folder: Path, runs: int, steps: int) -> dict[str, dict[str, float]]:
    """Every way to take a step, in turn: medians over the runs, and the distance from torch."""
    net = recipe.net()
    batches = [synthetic_windows(net.input_shape, net.outputs, BATCH, seed) for seed in range(BATCHES)]
    x, y = (np.stack(column) for column in zip(*batches, strict=True))
    parameters = initial_parameters(net, 1, *batches[0])
    trained = {name: array for name, array in parameters.items() if name != AMAX}
    jobs = {}
    for way in (*LEVELS, *PEERS):
        graph = TrainingGraph(way, ALL, "sgd") if way in LEVELS else None
        ours = graph is not None
        path = folder / f"{way}.onnx"
        if ours:
            path.write_bytes(build_training_graph(net, graph))
        (folder / f"{way}.in").write_bytes(encode_tensors({**(parameters if ours else trained), "x": x, "y": y}))
        optimiser = optimiser_tensors(graph, suffix_tensors(net.steps, 0)) if ours else ()
        job = Job(
            str(folder / f"{way}.in"),
            recipe.layer_list(),
            net.input_shape[1],
            str(path) if ours else "",
            {spec.name: spec.shape for spec in optimiser},
            recipe.training.learning_rate,
            MOMENTUM,
            steps,
            str(folder / f"{way}.out"),
        )
        (folder / f"{way}.json").write_bytes(msgspec.json.encode(job))
        jobs[way] = HERE / "steps" / ("ours.py" if ours else PEERS[way])
    if importlib.util.find_spec("torch") is None:
        del jobs["torch"]
    seen: dict[str, list[dict[str, float]]] = {way: [] for way in jobs}
    for _ in range(runs):
        for way, script in jobs.items():
            seen[way].append(run(script, folder / f"{way}.json"))
    found = {way: {key: statistics.median(one[key] for one in rows) for key in rows[0]} for way, rows in seen.items()}
    for way in found.keys() & {"Q0", "numpy"}:
        if "torch" in found:
            found[way]["off"] = distance(folder / f"{way}.out", folder / "torch.out")
    return found


def run(script: Path, job: Path) -> dict[str, float]:
    """One measured process."""
    quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(job)], env=os.environ | quiet, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{script.name} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def distance(one: Path, other: Path) -> float:
    """Largest difference of a parameter."""
    ours, theirs = decode_tensors(one.read_bytes()), decode_tensors(other.read_bytes())
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in theirs)


def step_figures(name: str, measured: dict[str, dict[str, float]]) -> list[Figure]:
    """Ratios beside torch and numpy, and the distance from torch."""
    made = []
    for peer in PEERS:
        for key, what in (("step_ms", "step_cpu"), ("rss_mb", "rss")):
            title = f"{name}_{what}_ratio_vs_{peer}"
            if peer not in measured:
                made.append(figure(title, None, "ours/peer", note="torch is not installed: make test TORCH=1"))
                continue
            ours, theirs = measured["Q0"][key], measured[peer][key]
            facts = {"ours": round(ours, 3), "peer_value": round(theirs, 3), "better": "lower"}
            if title in GOALS:
                facts["goal"] = round(GOALS[title], 3)
            made.append(figure(title, ours / theirs, "ours/peer", peer=peer, **facts))
    off = measured["Q0"].get("off")
    note = {} if off is not None else {"note": "torch is not installed: make test TORCH=1"}
    title = f"{name}_parameters_off_after_{COMPARED}_steps"
    made.append({**figure(title, None, "absolute", goal=1e-5, better="lower", **note), "value": off})
    for level in ("Q1", "Q2"):
        ratio = measured[level]["step_ms"] / measured["Q0"]["step_ms"]
        made.append(figure(f"{name}_{level.lower()}_step_cpu_over_q0", ratio, "ratio", better="lower"))
    return made


def step_table(measured: dict[str, dict[str, float]]) -> str:
    """For people."""
    rows: Sequence[Sequence[str]] = [
        [
            f"ours, {way}" if way in LEVELS else way,
            f"{row['step_ms']:.2f}",
            f"{row['rss_mb']:.0f}",
            f"{row['off']:.1e}" if "off" in row else "",
        ]
        for way, row in measured.items()
    ]
    return table(("way", "CPU ms a step", "peak MB", "off torch after 50 steps"), rows)


def window_figures(name: str) -> list[Figure]:
    """How long one int8 window takes on each runtime, in a child."""
    tar = build_quickly(load_recipe(name)).tar
    made = []
    for one in replay_in_children(tar, [bytes(KEY.verify_key)]).measured:
        made.append(figure(f"{name}_int8_p50_us_{one.runtime}", one.median_us, "us", better="lower"))
        goal = {"goal": 100.0} if name == "har" else {}
        made.append(figure(f"{name}_int8_p99_us_{one.runtime}", one.p99_us, "us", better="lower", **goal))
    return made


if __name__ == "__main__":
    main()
