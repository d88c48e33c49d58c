"""The computation behind `golden` and `trial`: how far this machine is from the author's golden vectors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.manifest import INFER, INFER_FLOAT, INFER_TFLITE
from bedside.core.bundle.tensors import Array
from bedside.core.bundle.verify import Bundle
from bedside.core.errors import BedsideError, MalformedError
from bedside.ondevice.refresh import float_runtime, int8_runtime
from bedside.ondevice.runtimes import Float32, Runtime


def compare_golden(bundle: Bundle) -> dict[str, float]:
    """Return the difference per golden tensor; `classes` counts windows that differ.

    Of losses and logits it is the largest absolute one. Of a parameter it is the root mean square: where training
    rounds, another order of sums moves single values by a whole step of theirs.

    Raises:
        MalformedError: `bad-golden`: a tensor is missing or has another shape; `bad-graph`.
    """
    served = _compare_serving(bundle)  # before the training graphs, which take longer to refuse
    return _compare_training(bundle) | served


def _compare_serving(bundle: Bundle) -> dict[str, float]:
    after, probe = golden_parameters(bundle), golden_windows(bundle)
    with blaming(INFER):
        int8 = int8_runtime(bundle, after).predict(probe)
    with blaming(INFER_FLOAT):
        exact = float_runtime(bundle, after).predict(probe)
    distances = {
        "logits": _distance(int8, _float(bundle, "logits")),
        "logits_float": _distance(exact, _float(bundle, "logits_float")),
    }
    return distances | _compare_classes(bundle, int8)


def compare_litert(bundle: Bundle, runtime: Runtime) -> dict[str, float]:
    """Return how far `runtime`, which has the `after` parameters, is from the golden vectors.

    Raises:
        MalformedError: `bad-golden`; `bad-graph`.
    """
    with blaming(INFER_TFLITE):
        logits = runtime.predict(golden_windows(bundle))
    return {"logits_litert": _distance(logits, _float(bundle, "logits"))} | _compare_classes(bundle, logits)


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
    probe = _float(bundle, "probe")
    if not len(probe):
        raise _bad("the golden vectors have no window to predict")
    return probe


@contextmanager
def blaming(file: str) -> Iterator[None]:
    """Foreign bytes may fail in any way while they are run; each is their fault."""
    try:
        yield
    except BedsideError:
        raise
    except Exception as error:
        raise MalformedError(
            "bad-graph",
            f"{file} cannot be run as a graph of this model: {type(error).__name__}: {str(error)[:200]}",
            remedy="build the bundle again with `bedside model build`",
        ) from error


def _compare_training(bundle: Bundle) -> dict[str, float]:
    """Every training graph, from the bundle's own parameters."""
    from bedside.ondevice.training.step import Rates, open_step  # onnxruntime with it

    manifest = bundle.manifest
    x, y = _float(bundle, "x"), _targets(bundle)
    differences: dict[str, float] = {}
    for graph in manifest.graphs:
        with blaming(graph.file):
            step = open_step(bundle, graph, bundle.parameters, Rates.of_golden(manifest.golden))
            losses = np.array([step(x, y) for _ in range(manifest.golden.steps)], np.float32)
            after = step.parameters()
        differences[f"{graph.key}/loss"] = _distance(losses, _float(bundle, f"{graph.key}/loss"))
        for spec in manifest.changed(graph.suffix):
            name = f"{graph.key}/{spec.name}"
            differences[name] = root_mean_square(_off(after[spec.name], _float(bundle, name)))
    return differences


def _compare_classes(bundle: Bundle, logits: Float32) -> dict[str, float]:
    """How many windows are told to be of another class, where there are classes."""
    if bundle.manifest.task != "classification":
        return {}
    classes = _tensor(bundle, "classes")
    if classes.shape != logits.shape[:1]:
        raise _bad(f"golden vector classes has shape {classes.shape}")
    return {"classes": float((logits.argmax(axis=1) != classes).sum())}


def _targets(bundle: Bundle) -> npt.NDArray[np.int64] | Float32:
    array = _tensor(bundle, "y")
    if array.dtype not in (np.int64, np.float32):
        raise _bad(f"golden vector y is {array.dtype}")
    return cast("npt.NDArray[np.int64] | Float32", array)


def root_mean_square(values: Float32) -> float:
    """Of all values; not a number when one of them is none."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _distance(ours: Float32, theirs: Float32) -> float:
    return float(np.abs(_off(ours, theirs)).max(initial=0.0))


def _off(ours: Float32, theirs: Float32) -> Float32:
    if ours.shape != theirs.shape:
        raise _bad(f"a golden vector has shape {theirs.shape} where the graph gives {ours.shape}")
    return ours - theirs


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
