"""A federation on a real set: what devices train, what a round sends, and what comes of it on held-out examples.

Everything is the product's own: bundles by the author's builder, training by the device's loop, vectors by the codec,
the coordinator's step, int8 by the device's refresh.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec
import numpy as np
from nacl.signing import SigningKey

from bedside.authoring.build import Built, build_bundle
from bedside.authoring.recipe import Recipe
from bedside.authoring.simulation.federation import Federation
from bedside.authoring.simulation.settings import Settings
from bedside.core.bundle.layers import Standardise
from bedside.core.bundle.training import Cost
from bedside.core.bundle.verify import Bundle, verify_archive
from bedside.ondevice.refresh import float_runtime, int8_runtime
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.moments import own_moments

KEY = SigningKey(b"benchmarks-of-learning-are-ours!")
Parameters = dict[str, Float32]


class Held(NamedTuple):
    """Held-out examples of one owner, who may be a client of the federation or a stranger to it."""

    owner: str
    windows: Windows


Answers = Sequence[tuple[Held, Float32]]
"""Held-out examples with a model's logits of them."""


@dataclass(frozen=True)
class Study:
    """One set with its recipe.

    Attributes:
        bundle: the model.
        clients: examples to train on.
        held: examples to be judged by.
        settings: of the federation.
        figures: metrics of answers, by name.
        first: settings of rounds before those, whose model they begin with; None for none.
    """

    bundle: Bundle
    clients: Mapping[str, Windows]
    held: Sequence[Held]
    settings: Settings
    figures: Callable[[Answers], dict[str, float]]
    first: Settings | None = None


def build(recipe: Mapping[str, object], seed: int) -> Bundle:
    """The bundle of a recipe, with the initial parameters of a seed."""
    built = build_quickly(msgspec.convert({**recipe, "seed": seed}, Recipe))
    return verify_archive(built.tar, [bytes(KEY.verify_key)])


def build_quickly(recipe: Recipe) -> Built:
    """Build without measuring what a step costs: nobody asks here."""
    costs = tuple(Cost(graph.key, recipe.training.batch, 1.0, 60.0) for graph in recipe.graphs)
    return build_bundle(msgspec.structs.replace(recipe, costs=costs), KEY)


def federate(study: Study, seed: int) -> Federation:
    """Run all rounds."""
    start = None
    if study.first is not None:
        before = Federation(study.bundle, study.clients, study.first, seed)
        for _ in range(study.first.rounds):
            before.round()
        start = before.parameters()
    federation = Federation(study.bundle, study.clients, study.settings, seed, start)
    for _ in range(study.settings.rounds):
        federation.round()
    return federation


def answers(study: Study, of: Callable[[str], Parameters], *, deployed: bool) -> Answers:
    """What a model says of the held-out examples: in float, or in the int8 form that devices serve."""
    runtime = int8_runtime if deployed else float_runtime
    said = []
    for held in study.held:
        parameters = _at_home(study.bundle, of(held.owner), held.windows)
        said.append((held, runtime(study.bundle, parameters).predict(held.windows.x)))
    return said


def _at_home(bundle: Bundle, parameters: Parameters, windows: Windows) -> Parameters:
    """A device's own moments of its unlabelled windows, where the model standardises by those."""
    first = bundle.manifest.layers[0]
    if not isinstance(first, Standardise) or first.scope != "local":
        return parameters
    return parameters | own_moments(bundle.manifest.steps(), [windows.x])


def judged(study: Study, federation: Federation, *, deployed: bool = False) -> dict[str, float]:
    """Figures of the federation's model, for a client with what it keeps for itself."""

    def of(owner: str) -> Parameters:
        return federation.parameters(owner if owner in study.clients else None)

    return study.figures(answers(study, of, deployed=deployed))


VARIANTS = {"float": 0, "8-bit": 8, "4-bit": 4}
"""Bits of a value on the wire; int8 is the 8-bit run in its deployed form."""


def variants(study: Study, seed: int) -> dict[str, dict[str, float]]:
    """Figures of each way to send and to serve; `cpu_s` is that of the run with 8 bits."""
    found: dict[str, dict[str, float]] = {}
    for name, bits in VARIANTS.items():
        first = study.first and msgspec.structs.replace(study.first, bits=study.first.bits if bits else 0)
        began = time.process_time()
        one = replace(study, settings=msgspec.structs.replace(study.settings, bits=bits), first=first)
        federation = federate(one, seed)
        spent = time.process_time() - began
        found[name] = judged(one, federation)
        if bits == VARIANTS["8-bit"]:
            found["int8"] = judged(one, federation, deployed=True)
            found["8-bit"]["cpu_s"] = spent
    return found


def pooled(study: Study, seed: int, *, at_home: bool) -> dict[str, float]:
    """All examples in one place, which no hospital would allow, with as many steps as all clients together.

    Args:
        study: the set.
        seed: of the run.
        at_home: each client's examples are standardised by its own moments before they are pooled, where the model
            does so.
    """
    parts = list(study.clients.values())
    x = np.concatenate([_standardised(study.bundle, part) if at_home else part.x for part in parts])
    together = Windows(x, np.concatenate([part.y for part in parts]))
    plain = msgspec.structs.replace(study.settings, bits=0, steps=study.settings.steps * len(parts))
    first = None if study.first is None else msgspec.structs.replace(study.first, bits=0)
    one = replace(study, clients={"all": together}, settings=plain, first=first)
    return judged(one, federate(one, seed))


def _standardised(bundle: Bundle, windows: Windows) -> Float32:
    own = _at_home(bundle, {}, windows)
    if not own:
        return windows.x
    mean, square = own["mean0"], own["square0"]
    return ((windows.x - mean) / np.sqrt(np.maximum(square - mean**2, 0) + 1e-5)).astype(np.float32)


def alone(study: Study, seed: int) -> dict[str, float]:
    """Each client by itself, with as many steps as it does in the federation, on its own held-out examples."""
    plain = msgspec.structs.replace(study.settings, bits=0)
    said = []
    for name, windows in study.clients.items():
        held = [one for one in study.held if one.owner == name]
        if held:
            one = replace(study, clients={name: windows}, held=held, settings=plain)
            model = federate(one, seed).parameters(name)
            said += answers(one, lambda _, model=model: model, deployed=False)
    return study.figures(said)


def alone_elsewhere(study: Study, seed: int) -> dict[str, float]:
    """Each client by itself, judged on everybody's held-out examples: the mean over clients."""
    plain = msgspec.structs.replace(study.settings, bits=0)
    rows = []
    for name, windows in study.clients.items():
        one = replace(study, clients={name: windows}, settings=plain)
        rows.append(judged(one, federate(one, seed)))
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def mean_and_deviation(rows: Sequence[Mapping[str, float]], name: str) -> tuple[float, float]:
    """Over seeds."""
    values = [row[name] for row in rows]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
