"""Data of other shapes need no code: recipes, sources and labels are written down, and real devices learn from them.

A CSV of 22 features with a target column, and 3 channels of 50 samples with values that somebody labelled, go through
`bedside model build`, a round, and the devices that then estimate both in their units.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Agent, Federation, bedside, bedside_json, run_bedside
from founding import build_model

from watched_rounds import wait_until

pytestmark = pytest.mark.system

SECONDS = 160
EXAMPLES = 64
FEATURES = [f"feature_{number}" for number in range(22)]
WEIGHTS = np.sin(np.arange(22))
STAY_OFFSET, STAY_SCALE = 9.0, 0.35
EFFORT_OFFSET, EFFORT_SCALE = 60.0, 0.03

LINEAR = """\
[training]
learning_rate = 0.05
momentum = 0.9
batch = 16
epochs = 4
[[costs]]
graph = "q1-all-sgd"
batch = 16
step_ms = 1.0
rss_mb = 100.0
"""
STAY = f"""\
name = "stay"
version = "1"
task = "regression"
labels = ["length_of_stay"]
layers = [
  {{ kind = "flatten" }},
  {{ kind = "dense", units = 16 }},
  {{ kind = "relu" }},
  {{ kind = "dense", units = 1 }},
]
[targets]
unit = ["d"]
offset = [{STAY_OFFSET}]
scale = [{STAY_SCALE}]
[window]
stream = "ehr"
fields = {FEATURES!r}
channels = 22
rate_hz = 1.0
length = 1
hop = 1
offset = {[0.0] * 22}
scale = {[1.0] * 22}
{LINEAR}"""
EFFORT = f"""\
name = "effort"
version = "1"
task = "regression"
labels = ["power"]
layers = [
  {{ kind = "conv1d", filters = 8, taps = 5 }},
  {{ kind = "relu" }},
  {{ kind = "gap" }},
  {{ kind = "dense", units = 1 }},
]
[targets]
unit = ["W"]
offset = [{EFFORT_OFFSET}]
scale = [{EFFORT_SCALE}]
[window]
stream = "flow"
channels = 3
rate_hz = 50.0
length = 50
hop = 50
offset = [0.0, 0.0, 0.0]
scale = [1.0, 1.0, 1.0]
{LINEAR}"""
FIELD = '{ unit = "1", sent_unit = "1" }'
SOURCES = """\
[[sources]]
kind = "csv"
name = "ehr"
[sources.options]
stream = "ehr"
path = "ehr.csv"
mode = "replay"
time_format = "relative_s"
history_s = {seconds}
loop = true
start_ns = {start_ns}
[sources.options.fields]
length_of_stay = {{ unit = "d", sent_unit = "d" }}
{fields}
[[sources]]
kind = "csv"
name = "flow"
[sources.options]
stream = "flow"
path = "flow.csv"
mode = "replay"
rate_hz = 50.0
time_column = ""
columns = ["a", "b", "c"]
unit = "1"
history_s = {seconds}
loop = true
start_ns = {start_ns}
[[sources]]
"""


def write_csv(path: Path, names: Sequence[str], rows: np.ndarray) -> None:
    lines = (",".join(f"{value:.6g}" for value in row) for row in rows)
    path.write_text("\n".join([",".join(names), *lines, ""]))


def give_data(agent: Agent, seed: int, begin_s: int) -> None:
    """Two tables, two sources, and a file of labels."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(SECONDS, 22))
    stay = STAY_OFFSET + (features @ WEIGHTS + random.normal(0, 0.1, SECONDS)) / STAY_SCALE / 3.0
    write_csv(
        agent.directory / "ehr.csv",
        ["time", *FEATURES, "length_of_stay"],
        np.column_stack([np.arange(SECONDS), features, stay]),
    )
    strength = np.repeat(random.uniform(0.1, 2.0, SECONDS // 2), 2)
    angle = np.arange(SECONDS * 50)[:, np.newaxis] * np.array([0.3, 0.5, 0.9])
    flow = np.sin(angle) * np.repeat(strength, 50)[:, np.newaxis] + random.normal(0, 0.05, angle.shape)
    write_csv(agent.directory / "flow.csv", ["a", "b", "c"], flow)
    powers = [
        f"{begin_s + second},{begin_s + second + 1},power,{EFFORT_OFFSET * strength[second]:.4f},flow"
        for second in range(SECONDS - 2)
    ]
    (agent.directory / "powers.csv").write_text("\n".join(["start_s,end_s,label,value,stream", *powers, ""]))
    config = agent.directory / "agent.toml"
    fields = "\n".join(f"{name} = {FIELD}" for name in FEATURES)
    more = SOURCES.format(seconds=SECONDS - 1, start_ns=begin_s * 10**9, fields=fields)
    config.write_text(config.read_text().replace("[[sources]]\n", more, 1))


@pytest.fixture(scope="module")
def other(federation: Federation) -> Federation:
    """The federation, whose devices have two more streams and labels on one of them."""
    begin_s = int(time.time()) - SECONDS
    for seed, agent in enumerate(federation.agents.values(), 1):
        give_data(agent, seed, begin_s)
        federation.restart_agent(agent.label)
    for agent in federation.agents.values():

        def import_powers(agent: Agent = agent) -> Any:
            done = run_bedside("agent", "label", "import", agent.directory, agent.directory / "powers.csv", "--json")
            return done.stdout if done.returncode == 0 else None

        wait_until(import_powers, "the labels' signal is there", interval_s=0.3)
    return federation


def learn(federation: Federation, name: str, recipe: str, tmp_path: Path, rounds: int = 2) -> list[Any]:
    """Build a recipe and run its rounds; they as they ended."""
    build_model(tmp_path / name, federation.author_key, recipe)
    wait_until(lambda: federation.online() == len(federation.agents), "every device is online", interval_s=0.1)
    options = ("--task", name, "--bundle", tmp_path / name, "--weighting", "uniform", "--rounds", str(rounds))
    first = int(
        federation.ask("round", "start", *options, "--max-examples", str(EXAMPLES), "--clip", "7")["first_round"]
    )

    def ended(number: int) -> Any:
        asked = ("round", "show", "--task", name, "--round", str(number), "--socket", federation.socket, "--json")
        shown = run_bedside(*asked)  # the second round begins when the first has ended
        detail = json.loads(shown.stdout) if shown.returncode == 0 else {}
        return detail if detail.get("finished_at_s") else None

    return [
        wait_until(lambda number=number: ended(number), f"round {number} of {name} ends", interval_s=0.2)
        for number in range(first, first + rounds)
    ]


@pytest.mark.parametrize(
    ("name", "recipe", "output", "unit", "offset", "length", "channels"),
    [
        ("stay", STAY, "length_of_stay", "d", STAY_OFFSET, 1, 22),
        ("effort", EFFORT, "power", "W", EFFORT_OFFSET, 50, 3),
    ],
)
def test_a_regression_goes_through_a_federation_by_configuration_alone(
    other: Federation,
    tmp_path: Path,
    name: str,
    recipe: str,
    output: str,
    unit: str,
    offset: float,
    length: int,
    channels: int,
) -> None:
    first, last = learn(other, name, recipe, tmp_path)
    assert (first["phase"], last["phase"]) == ("opened", "opened")
    devices = first["contributors"]
    assert devices == last["contributors"] >= 3, "one whose only session is held out has nothing to train on"
    assert first["counts"]["examples"] == EXAMPLES * devices
    assert last["counts"]["correct"] > first["counts"]["correct"], "it beats the offset on more of the examples"
    assert last["counts"]["correct"] > 0.6 * last["counts"]["examples"]

    agent = next(iter(other.agents.values()))

    def estimates() -> Any:
        rows = bedside_json("agent", "predictions", "list", agent.directory, "--model", name)
        return [row for row in rows if row["outputs"]]

    for row in wait_until(estimates, "it estimates", interval_s=0.3):
        (said,) = row["outputs"]
        assert (said["name"], said["unit"]) == (output, unit)
        assert abs(said["value"] - offset) < 20 * offset

    def explanation() -> Any:
        newest = max(row["id"] for row in estimates())
        asked = ("agent", "predictions", "explain", agent.directory, str(newest), "--segments", "5", "--json")
        done = run_bedside(*asked)  # the last round's model may take over in between
        return json.loads(done.stdout) if done.returncode == 0 else None

    explained = wait_until(explanation, "it explains a prediction of the model that serves", interval_s=0.3)
    assert (explained["output"], explained["unit"]) == (output, unit)
    assert [len(effects) for effects in explained["effects"]] == [channels] * min(5, length)
    shown = bedside("agent", "predictions", "list", agent.directory, "--model", name)
    assert f"{output} " in shown
    assert f" {unit} " in shown
