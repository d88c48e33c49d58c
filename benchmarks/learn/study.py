"""A federation on a real set: what devices train, what a round sends, and what comes of it on held-out examples.

Everything is the product's own: bundles by the author's builder, training by the device's loop, vectors by the codec,
the coordinator's step, int8 by the device's refresh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from nacl.signing import SigningKey

from bedside.authoring.build import Built, build_bundle
from bedside.authoring.recipe import Recipe
from bedside.authoring.simulation.federation import Federation
from bedside.authoring.simulation.settings import Settings
from bedside.core.bundle.layers import Standardise
from bedside.core.bundle.quantise import standard_affine
from bedside.core.bundle.training import Cost
from bedside.core.bundle.verify import Bundle, verify_archive
from bedside.ondevice.refresh import float_runtime, int8_runtime
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.moments import own_moments

_AT_ONCE = 256
KEY = SigningKey(b"benchmarks-of-learning-are-ours!")
Parameters = dict[str, Float32]


class Held(NamedTuple):
    """Held-out examples of one owner, who may be a client of the federation or a stranger to it."""

    owner: str
    windows: Windows


Answers = list[tuple[Held, Float32]]
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
    return opened(build_quickly(msgspec.convert({**recipe, "seed": seed}, Recipe)))


def build_quickly(recipe: Recipe) -> Built:
    """What `bedside model build` builds; nobody asks here what a step costs."""
    costs = tuple(Cost(graph.key, recipe.training.batch, 1.0, 60.0) for graph in recipe.graph_list())
    return build_bundle(msgspec.structs.replace(recipe, costs=costs), KEY)


def opened(built: Built) -> Bundle:
    """As a device has it."""
    return verify_archive(built.tar, [bytes(KEY.verify_key)])


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
    """What a model says of the held-out examples: in float, or in the int8 form that devices serve.

    A stranger to the federation puts in the moments of its own windows, as its device would.
    """
    runtime = int8_runtime if deployed else float_runtime
    said = []
    for held in study.held:
        parameters, x = of(held.owner), held.windows.x
        if held.owner not in study.clients:
            parameters = parameters | at_home(study.bundle, held.windows)
        model = runtime(study.bundle, parameters)
        parts = [model.predict(x[first : first + _AT_ONCE]) for first in range(0, len(x), _AT_ONCE)]
        said.append((held, np.concatenate(parts)))
    return said


def at_home(bundle: Bundle, windows: Windows) -> Parameters:
    """A device's own moments of its unlabelled windows, where the model standardises by those; else nothing."""
    first = bundle.manifest.layers[0]
    if not isinstance(first, Standardise) or first.scope != "local":
        return {}
    return own_moments(bundle.manifest.steps(), [windows.x])


def judged(study: Study, federation: Federation, *, deployed: bool = False) -> Answers:
    """What the federation's model says, for a client with what it keeps for itself."""

    def of(owner: str) -> Parameters:
        return federation.parameters(owner if owner in study.clients else None)

    return answers(study, of, deployed=deployed)


def standardised(bundle: Bundle, windows: Windows) -> Float32:
    """Windows by their owner's own moments, where the model standardises by those."""
    own = at_home(bundle, windows)
    if not own:
        return windows.x
    factor, shift = standard_affine(own["mean0"], own["square0"])
    return windows.x * factor + shift
