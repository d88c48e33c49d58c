"""Golden vectors: what a bundle's graphs must compute, on every machine that is to believe it.

Their windows are synthetic, one rhythm per class, so that a bundle carries nobody's signal. The training batch is
replayed for a few steps; the probe is predicted with the parameters after them. Only probe windows whose int8 classes
are clear by more than twice the tolerance of a logit are kept: integer kernels differ in the last step between CPUs,
and a class must not turn on that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from bedside.authoring.inference_graph import build_float_graph, build_int8_graph
from bedside.authoring.session import Float32, Int64, Rates, TrainingRun, predict, predict_tflite
from bedside.core.bundle.layers import Step
from bedside.core.bundle.manifest import (
    INFER,
    INFER_FLOAT,
    INFER_TFLITE,
    TRAIN,
    Golden,
    Quantisation,
    TensorSpec,
    Tolerance,
)
from bedside.core.bundle.patch import apply_patches
from bedside.core.bundle.quantise import quantise_parameters, real_tensors
from bedside.core.bundle.tensors import Array
from bedside.core.bundle.verify import Bundle
from bedside.core.errors import ConfigError, MalformedError, TrustError

AFTER: Final = "after."
_STEPS: Final = 12
_RATES: Final = Rates(learning_rate=0.05, momentum=0.9, proximal_mu=0.01)
_BATCH: Final = 16
_CANDIDATES: Final = 256
_PROBES: Final = 32
_LEAST_PROBES: Final = 4
_NOISE: Final = 0.2

_FLOAT_TOLERANCE: Final = 1e-3
"""Of losses, parameters and float logits: sums in another order, and a rounding that tips over, stay well below."""

_INT8_TOLERANCE: Final = 0.02
"""Of int8 logits, as a share of the largest: a few steps of the last layer's input."""


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """The golden tensors by name, and what the manifest says about them."""

    tensors: dict[str, Array]
    terms: Golden


def synthetic_windows(shape: tuple[int, int], classes: int, count: int, seed: int) -> tuple[Float32, Int64]:
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


def golden_batch(shape: tuple[int, int], classes: int, seed: int) -> tuple[Float32, Int64]:
    """The batch of the golden training steps."""
    return synthetic_windows(shape, classes, _BATCH, seed)


def make_golden(
    train: bytes,
    steps: Sequence[Step],
    parameters: Mapping[str, Float32],
    optimiser: Sequence[TensorSpec],
    quantisation: Quantisation,
    seed: int,
) -> GoldenSet:
    """Compute golden tensors with this machine's onnxruntime.

    The logits come from graphs that were built with the parameters after the golden steps, while a replay lays those
    over the bundle's graphs: it sees when a runtime does not take them.

    Raises:
        ConfigError: `no-clear-golden`: the net tells hardly any two windows apart.
    """
    length, channels = steps[0].before
    shape, classes = (length, channels), steps[-1].after[0]
    x, y = golden_batch(shape, classes, seed)
    losses, after = _train(train, parameters, optimiser, x, y, _STEPS, _RATES)
    candidates, _ = synthetic_windows(shape, classes, _CANDIDATES, seed + 1)
    int8 = predict(build_int8_graph(steps, quantise_parameters(after, quantisation)), {}, candidates)
    tolerance = round(_INT8_TOLERANCE * float(np.abs(int8).max()), 6)
    chosen = _clear(int8, 2 * tolerance)
    probe, logits = candidates[chosen], int8[chosen]
    float_graph = build_float_graph(steps, _without_ranges(after, quantisation))
    tensors: dict[str, Array] = {
        "x": x,
        "y": y,
        "loss": losses,
        "probe": probe,
        "logits": logits,
        "logits_float": predict(float_graph, {}, probe),
        "classes": logits.argmax(axis=1).astype(np.int64),
    }
    tensors |= {AFTER + name: array for name, array in after.items()}
    floats = [Tolerance(name, _FLOAT_TOLERANCE) for name in ("loss", "logits_float", *after)]
    tolerances = (Tolerance("logits", tolerance), Tolerance("logits_litert", tolerance), *floats)
    terms = Golden(_STEPS, _RATES.learning_rate, _RATES.momentum, _RATES.proximal_mu, tolerances)
    return GoldenSet(tensors, terms)


def replay_golden(bundle: Bundle) -> dict[str, float]:
    """Replay a verified bundle's golden vectors in this process.

    Returns:
        The largest absolute difference per tensor; for `classes`, how many windows differ.

    Raises:
        TrustError: `golden-mismatch`.
        MalformedError: `bad-graph`, or `bad-golden`: a tensor is missing or has another shape.
    """
    manifest, golden = bundle.manifest, bundle.golden
    terms = manifest.golden
    rates = Rates(terms.learning_rate, terms.momentum, terms.proximal_mu)
    try:
        x, probe = cast("Float32", golden["x"]), cast("Float32", golden["probe"])
        y = cast("Int64", golden["y"])
        losses, ours = _train(bundle.files[TRAIN], bundle.parameters, manifest.optimiser, x, y, terms.steps, rates)
        after = {name: cast("Float32", golden[AFTER + name]) for name in ours}
        quantised = quantise_parameters(after, manifest.quantisation)
        logits = predict(bundle.files[INFER], quantised, probe)
        weights = _without_ranges(after, manifest.quantisation)
        found = {
            "loss": _distance(losses, golden["loss"]),
            "logits": _distance(logits, golden["logits"]),
            "logits_float": _distance(predict(bundle.files[INFER_FLOAT], weights, probe), golden["logits_float"]),
            "classes": float((logits.argmax(axis=1) != golden["classes"]).sum()),
        }
        if isinstance(manifest.patches, tuple):
            tensors = quantised | real_tensors(quantised, manifest.quantisation)
            lite = predict_tflite(apply_patches(bundle.files[INFER_TFLITE], manifest.patches, tensors), probe)
            found["logits_litert"] = _distance(lite, golden["logits"])
            found["classes"] += float((lite.argmax(axis=1) != golden["classes"]).sum())
    except KeyError as error:
        raise MalformedError(
            "bad-golden", f"the golden vectors have no {error}", remedy="build the bundle again"
        ) from None
    found |= {name: _distance(array, after[name]) for name, array in ours.items()}
    for tensor, difference in found.items():
        if not difference <= manifest.tolerance(tensor):
            raise TrustError(
                "golden-mismatch",
                f"{manifest.name} computes {tensor} {difference:.3g} away from its golden vector here",
                remedy="do not use this bundle on this machine; build it again for this onnxruntime",
            )
    return found


def _train(
    graph: bytes,
    parameters: Mapping[str, Float32],
    optimiser: Sequence[TensorSpec],
    x: Float32,
    y: Int64,
    steps: int,
    rates: Rates,
) -> tuple[Float32, dict[str, Float32]]:
    run = TrainingRun(graph, parameters, optimiser, rates)
    losses = np.array([run.step(x, y) for _ in range(steps)], np.float32)
    return losses, run.parameters()


def _clear(logits: Float32, margin: float) -> Int64:
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


def _without_ranges(parameters: Mapping[str, Float32], quantisation: Quantisation) -> dict[str, Float32]:
    return {name: array for name, array in parameters.items() if name != quantisation.amax}


def _distance(ours: Float32, theirs: Array) -> float:
    if ours.shape != theirs.shape:
        raise MalformedError("bad-golden", f"a golden vector has shape {theirs.shape}, the graph gives {ours.shape}")
    return float(np.abs(ours - theirs).max(initial=0.0))
