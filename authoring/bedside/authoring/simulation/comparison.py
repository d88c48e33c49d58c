"""One federation beside what else could be done with the same data: pool them, or let every client learn alone.

All of them take as many rounds, of as many local epochs each; where local steps are bounded instead, pooled training
takes those of all clients together. They are judged on the same held-out examples, but for a client alone, which is
judged on its own where it has some: float as devices evaluate, int8 as they serve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from bedside.authoring.data.dataset import Dataset
from bedside.authoring.data.spec import unusable
from bedside.authoring.simulation.federation import Federation, RoundReport
from bedside.authoring.simulation.settings import Settings
from bedside.core.bundle.verify import Bundle
from bedside.ondevice.refresh import float_runtime, int8_runtime
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.moments import own_moments
from bedside.ondevice.training.scoring import SCORING_BATCH, new_score

FEDERATED: Final = "federated, float"
DEPLOYED: Final = "federated, int8"
POOLED: Final = "pooled, float"
LOCAL: Final = "local only, float"

Figures = dict[str, float]


class Compared(NamedTuple):
    """What one seed gave.

    Attributes:
        figures: by row of the table; of `local only` the mean over clients.
        rounds: of the federation.
        parameters: of the federation, as nobody has them.
    """

    figures: dict[str, Figures]
    rounds: tuple[RoundReport, ...]
    parameters: dict[str, Float32]


def work(dataset: Dataset, settings: Settings) -> int:
    """How often `compare` calls `advance`."""
    return settings.rounds * (2 + len(dataset.training))


def compare(
    bundle: Bundle, dataset: Dataset, settings: Settings, seed: int, advance: Callable[[float, str], None]
) -> Compared:
    """Run and judge all of them.

    Args:
        bundle: the model.
        dataset: has held-out examples.
        settings: of the federation; pooled and local training take its rounds, epochs and rates.
        seed: of shuffles and roundings.
        advance: called after each round of each, with what it did.

    Raises:
        ConfigError: `bad-data`: nothing is held out; `bad-settings`.
        MalformedError: `bad-examples`.
    """
    if not dataset.held_out:
        raise unusable("nothing is held out, so that nothing can be judged", "name clients or a share in [held_out]")
    clients = dataset.training
    federation = Federation(bundle, clients, settings, seed)
    rounds = _run(federation, settings, "federated", advance)
    common = federation.parameters()
    states = {
        name: federation.parameters(name) if name in clients else _as_newcomer(bundle, common, examples)
        for name, examples in dataset.held_out.items()
    }
    figures = {
        FEDERATED: _judged(bundle, dataset.held_out, states, int8=False),
        DEPLOYED: _judged(bundle, dataset.held_out, states, int8=True),
    }
    alone = msgspec.structs.replace(settings, bits=0, noise_multiplier=0.0, server="fedavg", server_learning_rate=1.0)
    together = msgspec.structs.replace(alone, steps=settings.steps * len(clients))
    figures[POOLED] = _alone(bundle, dataset.pooled(), together, seed, dataset.held_out, "pooled", advance)
    each = []
    for name, examples in clients.items():
        judged = {name: dataset.held_out[name]} if name in dataset.held_out else dataset.held_out
        each.append(_alone(bundle, examples, alone, seed, judged, f"{name} alone", advance))
    figures[LOCAL] = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    return Compared(figures, rounds, common)


def summary(found: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (of the sample) of each figure over seeds."""
    return {
        name: (
            float(np.mean([one[name] for one in found])),
            float(np.std([one[name] for one in found], ddof=1)) if len(found) > 1 else 0.0,
        )
        for name in found[0]
    }


def _run(
    federation: Federation, settings: Settings, what: str, advance: Callable[[float, str], None]
) -> tuple[RoundReport, ...]:
    reports = []
    for number in range(1, settings.rounds + 1):
        reports.append(federation.round())
        advance(1, f"{what} round {number}, loss {reports[-1].loss_after:.4g}")
    return tuple(reports)


def _alone(
    bundle: Bundle,
    examples: Windows,
    settings: Settings,
    seed: int,
    judged: Mapping[str, Windows],
    what: str,
    advance: Callable[[float, str], None],
) -> Figures:
    """One client by itself, with local tensors of its own."""
    alone = Federation(bundle, {what: examples}, settings, seed)
    _run(alone, settings, what, advance)
    return _judged(bundle, judged, dict.fromkeys(judged, alone.parameters(what)), int8=False)


def _judged(
    bundle: Bundle, held_out: Mapping[str, Windows], states: Mapping[str, Mapping[str, Float32]], *, int8: bool
) -> Figures:
    """Every client's examples by the model as it would have it."""
    total = new_score(bundle.manifest)
    for name, examples in held_out.items():
        runtime = int8_runtime(bundle, states[name]) if int8 else float_runtime(bundle, states[name])
        for first in range(0, len(examples), SCORING_BATCH):
            some = slice(first, first + SCORING_BATCH)
            total.add(runtime.predict(examples.x[some]), examples.y[some])
    return dict(total.figures())


def _as_newcomer(bundle: Bundle, parameters: Mapping[str, Float32], examples: Windows) -> dict[str, Float32]:
    """The model on a device that has not trained: it knows its own windows, if the model standardises by those."""
    own = own_moments(bundle.manifest.steps(), [examples.x])
    local = {spec.name for spec in bundle.manifest.parameters if not spec.shared}
    return {**parameters, **{name: array for name, array in own.items() if name in local}}
