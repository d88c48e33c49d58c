"""The computation behind `golden` and `trial`: how far this machine is from the author's golden vectors."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.tensors import Array
from bedside.core.bundle.verify import Bundle
from bedside.core.errors import MalformedError
from bedside.ondevice.refresh import float_runtime, int8_runtime
from bedside.ondevice.runtimes import Float32, Runtime


def compare_golden(bundle: Bundle) -> dict[str, float]:
    """Return the largest absolute difference per golden tensor; `classes` counts windows that differ.

    Raises:
        MalformedError: `bad-golden`: a tensor is missing or has another shape; `bad-graph`.
    """
    differences = _compare_training(bundle)
    after = golden_parameters(bundle)
    probe = golden_windows(bundle)
    int8 = int8_runtime(bundle, after).predict(probe)
    return differences | {
        "logits": _distance(int8, _float(bundle, "logits")),
        "logits_float": _distance(float_runtime(bundle, after).predict(probe), _float(bundle, "logits_float")),
        "classes": float((int8.argmax(axis=1) != _tensor(bundle, "classes")).sum()),
    }


def compare_litert(bundle: Bundle, runtime: Runtime) -> dict[str, float]:
    """Return how far `runtime`, which has the `after` parameters, is from the golden vectors.

    Raises:
        MalformedError: `bad-golden`; `bad-graph`.
    """
    logits = runtime.predict(golden_windows(bundle))
    return {
        "logits_litert": _distance(logits, _float(bundle, "logits")),
        "classes": float((logits.argmax(axis=1) != _tensor(bundle, "classes")).sum()),
    }


def golden_parameters(bundle: Bundle) -> dict[str, Float32]:
    """The author's parameters after the golden steps of the first training graph.

    Raises:
        MalformedError: `bad-golden`.
    """
    manifest = bundle.manifest
    first = manifest.graphs[0]
    changed = {spec.name for spec in manifest.changed(first.suffix)}
    return {
        spec.name: _float(bundle, f"{first.key}/{spec.name}") if spec.name in changed else bundle.parameters[spec.name]
        for spec in manifest.parameters
    }


def golden_windows(bundle: Bundle) -> Float32:
    """The probe (M, L, C).

    Raises:
        MalformedError: `bad-golden`.
    """
    return _float(bundle, "probe")


def _compare_training(bundle: Bundle) -> dict[str, float]:
    """Every training graph, from the bundle's own parameters."""
    from bedside.ondevice.training.step import Rates, open_step  # onnxruntime with it

    manifest = bundle.manifest
    x, y = _float(bundle, "x"), _targets(bundle)
    differences: dict[str, float] = {}
    for graph in manifest.graphs:
        step = open_step(bundle, graph, bundle.parameters, Rates.of_golden(manifest.golden))
        losses = np.array([step(x, y) for _ in range(manifest.golden.steps)], np.float32)
        differences[f"{graph.key}/loss"] = _distance(losses, _float(bundle, f"{graph.key}/loss"))
        after = step.parameters()
        for spec in manifest.changed(graph.suffix):
            name = f"{graph.key}/{spec.name}"
            differences[name] = _distance(after[spec.name], _float(bundle, name))
    return differences


def _targets(bundle: Bundle) -> npt.NDArray[np.int64] | Float32:
    array = _tensor(bundle, "y")
    if array.dtype not in (np.int64, np.float32):
        raise _bad(f"golden vector y is {array.dtype}")
    return cast("npt.NDArray[np.int64] | Float32", array)


def _distance(ours: Float32, theirs: Float32) -> float:
    if ours.shape != theirs.shape:
        raise _bad(f"a golden vector has shape {theirs.shape} where the graph gives {ours.shape}")
    return float(np.abs(ours - theirs).max(initial=0.0))


def _float(bundle: Bundle, name: str) -> Float32:
    array = _tensor(bundle, name)
    if array.dtype != np.float32:
        raise _bad(f"golden vector {name} is {array.dtype}")
    return cast("Float32", array)


def _tensor(bundle: Bundle, name: str) -> Array:
    try:
        return bundle.golden[name]
    except KeyError:
        raise _bad(f"the golden vectors have no {name}") from None


def _bad(sentence: str) -> MalformedError:
    return MalformedError("bad-golden", sentence, remedy="build the bundle again with `bedside model build`")
