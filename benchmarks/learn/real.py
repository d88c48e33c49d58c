"""The demo's federation beside the same federation in one process: agents, trustees and a coordinator change nothing.

Both train on what eight wearers' devices do not hold out for their accuracy gate, which each device draws from its own
secret; the runs in one process draw secrets, shuffles and roundings anew with every seed.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from bedside.agent.windows.holdout import HoldOut
from bedside.authoring.recipe import load_recipe
from bedside.authoring.simulation.settings import Settings
from bedside.demo.evaluation import cut_windows
from bedside.demo.recordings import Wearer, find_watch_file, read_wearers
from bedside.demo.run import HELD_OUT
from bedside.demo.world import SERVER_LEARNING_RATE
from bedside.firmware_bridge.recording import Label, Recording
from bedside.ondevice.training.examples import Windows

from .compared import Rows
from .metrics import accuracy
from .study import Held, Study, build_quickly, federate, judged, opened

SEEDS: Final = 8
SETTINGS: Final = Settings(rounds=12, server_learning_rate=SERVER_LEARNING_RATE)
"""As the demo's rounds; the rest is the author's, or the default of `bedside round start`."""

_NS_PER_S: Final = 1_000_000_000


def rows(_root: Path, seed: int, *, quick: bool) -> Rows:
    """One run of the demo, and several in this process."""
    rounds = 3 if quick else SETTINGS.rounds
    real = demo(rounds, seed)
    bundle = opened(build_quickly(load_recipe("watch")))
    wearers = read_wearers(find_watch_file())
    held = [
        Held("", cut_windows([one.recording], bundle.manifest.window, bundle.manifest.labels))
        for one in wearers
        if one.number in HELD_OUT
    ]
    settings = msgspec.structs.replace(SETTINGS, rounds=rounds)
    inside = []
    for number in range(2 if quick else SEEDS):
        random = np.random.default_rng((seed, number))
        clients = {f"wearer-{one.number}": kept(one, random) for one in wearers if one.number not in HELD_OUT}
        study = Study(bundle, clients, held, settings, accuracy)
        inside.append(accuracy(judged(study, federate(study, 1_000 * seed + number)))["pooled"])
    mean, deviation = statistics.fmean(inside), statistics.stdev(inside)
    return {
        "real": {"accuracy": real},
        "in one process": {"accuracy": mean, "accuracy_deviation": deviation},
        "difference": {"accuracy": real - mean, "accuracy_deviation": deviation},
    }


def demo(rounds: int, seed: int) -> float:
    """Accuracy of the demo's last checkpoint on the wearers that do not train."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("bedside")), "demo", "--json", "--rounds", str(rounds)]
        command += ["--seed", str(seed), "--out", f"{folder}/out"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"the demo has no result: {done.stderr[-500:]}")
    told = json.JSONDecoder().raw_decode(done.stdout)[0]
    return float(told["federated_accuracy"])


def kept(wearer: Wearer, random: np.random.Generator) -> Windows:
    """The windows that a device with a secret of its own trains on."""
    recipe = load_recipe("watch")
    spec, labels, recording = recipe.window_spec(), recipe.labels, wearer.recording
    hold_out, begun_ns = HoldOut(random.bytes(32), spec), int(random.integers(1 << 60))
    sample_ns = round(_NS_PER_S / recording.rate_hz)
    parts = []
    for first, end in recording.sessions:
        (name,) = [one.name for one in recording.labels if one.start == first]
        alone = Recording(recording.values[first:end], recording.rate_hz, (Label(0, end - first, name),), (0,))
        windows = cut_windows([alone], spec, labels)
        starts = begun_ns + (first + spec.hop * np.arange(len(windows))) * sample_ns
        roles = [hold_out.role(name, start, start + spec.length * sample_ns) for start in starts.tolist()]
        trains = np.array(roles) == "training"
        parts.append(Windows(windows.x[trains], windows.y[trains]))
    return Windows(np.concatenate([one.x for one in parts]), np.concatenate([one.y for one in parts]))
