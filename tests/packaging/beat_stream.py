"""A synthetic electrocardiogram with normal and ventricular beats, a recipe for a model of it, and its bundle."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import numpy as np

from bedside.demo.processes import bedside_command
from bedside.firmware_bridge.recording import Label, Recording

RATE_HZ: Final = 125.0
STREAM: Final = "ecg"
CLASSES: Final = ("normal", "ventricular")
SESSIONS: Final = 4
SESSION_S: Final = 60
BEAT_S: Final = 0.8
RUN_BEATS: Final = 15

RECIPE: Final = f"""\
name = "beats"
version = "1"
labels = {json.dumps(CLASSES)}
layers = [
  {{ kind = "conv1d", filters = 16, taps = 9 }},
  {{ kind = "relu" }},
  {{ kind = "maxpool" }},
  {{ kind = "flatten" }},
  {{ kind = "dense", units = 256 }},
  {{ kind = "relu" }},
  {{ kind = "dense", units = {len(CLASSES)} }},
]
[window]
stream = "{STREAM}"
channels = 1
rate_hz = {RATE_HZ}
length = 100
hop = 100
offset = [0.0]
scale = [1.0]
[training]
learning_rate = 0.02
momentum = 0.9
batch = 16
epochs = 2
[[costs]]
graph = "q1-all-sgd"
batch = 16
step_ms = 1.0
rss_mb = 100.0
"""


def electrocardiogram(seed: int) -> Recording:
    """One lead in mV: runs of normal beats, and of wide ones without a P wave, in turn."""
    generator = np.random.default_rng(seed)
    beat = int(BEAT_S * RATE_HZ)
    beats = int(SESSIONS * SESSION_S / BEAT_S)
    time_s = np.arange(beat) / RATE_HZ

    def wave(at_s: float, width_s: float, height: float) -> Any:
        return height * np.exp(-(((time_s - at_s) / width_s) ** 2))

    shapes = (
        wave(0.15, 0.03, 0.15) + wave(0.30, 0.012, 1.2) + wave(0.55, 0.06, 0.3),
        wave(0.30, 0.060, -1.0) + wave(0.42, 0.05, 0.8) + wave(0.60, 0.08, -0.3),
    )
    kinds = [(number // RUN_BEATS + seed) % len(CLASSES) for number in range(beats)]
    values = np.concatenate([shapes[kind] * generator.uniform(0.8, 1.2) for kind in kinds])
    values += generator.normal(0, 0.03, len(values))
    labels = tuple(
        Label(first * beat, (first + RUN_BEATS) * beat, CLASSES[kinds[first]]) for first in range(0, beats, RUN_BEATS)
    )
    starts = tuple(int(number * SESSION_S * RATE_HZ) for number in range(SESSIONS))
    return Recording(values[:, None].astype(np.float32), RATE_HZ, labels, starts, unit="mV")


def build_model(folder: Path) -> str:
    """Build a signed bundle at `folder`, as its author does on a machine of theirs; the author's public key."""
    recipe, key = folder.with_suffix(".toml"), folder.with_suffix(".key")
    recipe.write_text(RECIPE)
    for command in (["key", key], ["build", recipe, folder, "--signing-key", key, "--json"]):
        line = bedside_command("model", *command)
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["signer_pk"])
