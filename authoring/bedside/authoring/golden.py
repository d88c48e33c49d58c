"""Golden vectors: what a bundle's graphs must compute, on every machine that is to believe it.

Their windows are synthetic, one rhythm per class, so that a bundle carries nobody's signal. The training batch is
replayed for a few steps by every training graph; the probe is predicted with the parameters after those of the first.
Of an imported module, that framework computed the float steps and the float logits.
Only probe windows whose int8 classes are clear by more than twice the tolerance of a logit are kept: integer kernels
differ in the last step between CPUs, and a class must not turn on that.

Where training rounds, sums in another order tip single values over, and every step doubles what came of it. So the
steps are few, and a parameter may be off by a share of the way that it went: of its root mean square, on which single
values weigh little, while a gradient of the wrong sign is off by twice the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from bedside.authoring.inference_graph import build_float_graph, build_int8_graph
from bedside.authoring.net import Net
from bedside.core.bundle.bounds import LEAST_TOLERANCE
from bedside.core.bundle.manifest import Golden, Tolerance
from bedside.core.bundle.parameters import AMAX, TensorSpec
from bedside.core.bundle.quantise import quantise_parameters
from bedside.core.bundle.tensors import Array
from bedside.core.bundle.training import ALL, Level, TrainingGraph, optimiser_tensors
from bedside.core.errors import ConfigError
from bedside.ondevice.replay import root_mean_square
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.runtimes.onnx import OnnxRuntime
from bedside.ondevice.training.step import Rates, Targets, TrainingStep

FLOAT: Final = TrainingGraph("Q0", ALL, "sgd")
"""The graph that another framework can be held against."""

_STEPS: Final = 4
_RATES: Final = Rates(learning_rate=0.01, momentum=0.9, proximal_mu=0.01)
_BATCH: Final = 16
_CANDIDATES: Final = 256
_PROBES: Final = 32
_LEAST_PROBES: Final = 4
_NOISE: Final = 0.2
_RHYTHM_BITS: Final = 3
_RHYTHMS: Final = 1 << _RHYTHM_BITS
"""Of nets that do not tell classes apart."""

_FLOAT_TOLERANCE: Final = 1e-3
"""Of float logits at most: sums in another order stay well below."""

_WAY_SHARES: Final[dict[Level, float]] = {"Q0": 0.02, "Q1": 0.3, "Q2": 0.5}
"""Of a parameter, as a share of its way; an eighth to a third of it has been seen where sums were disturbed."""

_LOSS_SHARES: Final[dict[Level, float]] = {"Q0": 1e-3, "Q1": 0.05, "Q2": 0.05}
"""Of a loss, as a share of the largest."""

_RANGE_SHARE: Final = 0.02
"""Of ranges, as a share of their root mean square."""

_INT8_TOLERANCE: Final = 0.02
"""Of int8 logits, as a share of the largest: a few steps of the last layer's input."""


class Witness(Protocol):
    """Another program that computes the same model."""

    def train(
        self, parameters: Mapping[str, Float32], x: Float32, y: Targets, rates: Rates, steps: int
    ) -> tuple[Float32, dict[str, Float32]]:
        """Losses (steps,) and parameters, without ranges, after float steps of SGD on one batch."""

    def predict(self, parameters: Mapping[str, Float32], x: Float32) -> Float32:
        """Logits (N, outputs) of windows (N, L, C)."""


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """The golden tensors by name, and what the manifest says about them."""

    tensors: dict[str, Array]
    terms: Golden


def synthetic_windows(
    shape: tuple[int, int], classes: int, count: int, seed: int
) -> tuple[Float32, npt.NDArray[np.int64]]:
    """Draw `count` windows (L, C) with classes in turn: each class has a rhythm of its own, in another phase each time.

    Returns:
        `x` (count, L, C) float32 and `y` (count,) int64.
    """
    generator = np.random.default_rng((seed, 1))
    length, channels = shape
    y = np.arange(count, dtype=np.int64) % classes
    turns = np.arange(length)[:, np.newaxis] * (1 + y[:, np.newaxis, np.newaxis]) / length
    phase = generator.uniform(0, 1, (count, 1, channels))
    wave = np.sin(2 * np.pi * (turns + phase)) * (1 + (y[:, np.newaxis, np.newaxis] + np.arange(channels)) % 3) / 2
    noise = generator.normal(0, _NOISE, wave.shape)
    return (wave + noise).astype(np.float32), y


def synthetic_batch(net: Net, count: int, seed: int) -> tuple[Float32, Targets]:
    """Draw `count` windows with what a net can learn of them: their rhythm, or labels and values that it decides."""
    if net.task == "classification":
        return synthetic_windows(net.input_shape, net.outputs, count, seed)
    x, rhythm = synthetic_windows(net.input_shape, _RHYTHMS, count, seed)
    outputs = np.arange(net.outputs)
    if net.task == "multilabel":
        return x, ((rhythm[:, np.newaxis] >> (outputs % _RHYTHM_BITS)) & 1).astype(np.float32)
    return x, ((rhythm[:, np.newaxis] + outputs) % _RHYTHMS / (_RHYTHMS / 2) - 1).astype(np.float32)


def golden_batch(net: Net, seed: int) -> tuple[Float32, Targets]:
    """The batch of the golden training steps."""
    return synthetic_batch(net, _BATCH, seed)


def make_golden(
    net: Net,
    graphs: Mapping[TrainingGraph, bytes],
    changed: Mapping[TrainingGraph, tuple[TensorSpec, ...]],
    parameters: Mapping[str, Float32],
    seed: int,
    witness: Witness | None = None,
) -> GoldenSet:
    """Compute golden tensors with this machine's onnxruntime, or what `witness` can compute with that.

    The logits come from graphs that were built with the parameters after the golden steps, while a replay lays those
    over the bundle's graphs: it sees when a runtime does not take them.

    Args:
        net: the model.
        graphs: its training graphs, the recommended one first.
        changed: the tensors that each may change.
        parameters: of the bundle.
        seed: of the windows.
        witness: the module in another framework that the net comes from.

    Raises:
        ConfigError: `no-clear-golden`: the net tells hardly any two windows apart.
    """
    x, y = golden_batch(net, seed)
    tensors: dict[str, Array] = {"x": x, "y": y}
    tolerances: list[Tolerance] = []
    after: dict[str, Float32] = {}
    for graph, data in graphs.items():
        step = TrainingStep(data, parameters, optimiser_tensors(graph, changed[graph]), _RATES)
        losses = np.array([step(x, y) for _ in range(_STEPS)], np.float32)
        state = step.parameters()
        if witness is not None and graph == FLOAT:
            losses, told = witness.train(parameters, x, y, _RATES, _STEPS)
            state |= told
        tensors |= {f"{graph.key}/loss": losses}
        tensors |= {f"{graph.key}/{spec.name}": state[spec.name] for spec in changed[graph]}
        tolerances.append(_tolerance(f"{graph.key}/loss", _LOSS_SHARES[graph.level] * float(np.abs(losses).max())))
        for spec in changed[graph]:
            way = state[spec.name] - parameters[spec.name]
            share, size = (_RANGE_SHARE, state[AMAX]) if spec.name == AMAX else (_WAY_SHARES[graph.level], way)
            tolerances.append(_tolerance(f"{graph.key}/{spec.name}", share * root_mean_square(size)))
        after = after or state
    probes, allowed = _probe(net, after, seed)
    if witness is not None:
        probes["logits_float"] = witness.predict(after, cast("Float32", probes["probe"]))
    tolerances += [Tolerance(name, allowed) for name in ("logits", "logits_litert")]
    exact = _INT8_TOLERANCE * float(np.abs(probes["logits_float"]).max())
    tolerances.append(_tolerance("logits_float", min(_FLOAT_TOLERANCE, exact)))
    terms = Golden(
        _STEPS, _RATES.learning_rate, _RATES.momentum, _RATES.proximal_mu, _RATES.gradient_clip, tuple(tolerances)
    )
    return GoldenSet(tensors | probes, terms)


def _tolerance(tensor: str, allowed: float) -> Tolerance:
    return Tolerance(tensor, round(max(allowed, LEAST_TOLERANCE), 6))


def _probe(net: Net, after: Mapping[str, Float32], seed: int) -> tuple[dict[str, Array], float]:
    """Windows and what is said of them, and the tolerance of an int8 logit."""
    candidates, _ = synthetic_windows(net.input_shape, net.outputs, _CANDIDATES, seed + 1)
    int8 = OnnxRuntime(build_int8_graph(net, quantise_parameters(after, net.quantisation)), {}).predict(candidates)
    tolerance = round(_INT8_TOLERANCE * float(np.abs(int8).max()), 6)
    chosen = _clear(int8, 2 * tolerance) if net.task == "classification" else np.arange(_PROBES)
    probe, logits = candidates[chosen], int8[chosen]
    weights = {name: array for name, array in after.items() if name != AMAX}
    told: dict[str, Array] = {
        "probe": probe,
        "logits": logits,
        "logits_float": OnnxRuntime(build_float_graph(net, weights), {}).predict(probe),
    }
    if net.task == "classification":
        told["classes"] = logits.argmax(axis=1).astype(np.int64)
    return told, tolerance


def _clear(logits: Float32, margin: float) -> npt.NDArray[np.int64]:
    """Indexes of the first windows whose best class leads by more than `margin`, one class after the other."""
    ordered = np.sort(logits, axis=1)
    indexes = np.flatnonzero(ordered[:, -1] - ordered[:, -2] > margin)
    if len(indexes) < _LEAST_PROBES:
        raise ConfigError(
            "no-clear-golden",
            f"only {len(indexes)} of {_CANDIDATES} synthetic windows have a clear class",
            remedy="give the net more filters, or another seed",
        )
    return indexes[:_PROBES].astype(np.int64)
