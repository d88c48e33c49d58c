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

AFTER = "after."


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
    """The author's parameters after the golden steps.

    Raises:
        MalformedError: `bad-golden`.
    """
    return {spec.name: _float(bundle, AFTER + spec.name) for spec in bundle.manifest.parameters}


def golden_windows(bundle: Bundle) -> Float32:
    """The probe (M, L, C).

    Raises:
        MalformedError: `bad-golden`.
    """
    return _float(bundle, "probe")


def _compare_training(bundle: Bundle) -> dict[str, float]:
    from bedside.ondevice.training.step import TrainingStep  # onnxruntime with it

    golden = bundle.manifest.golden
    step = TrainingStep(
        bundle,
        bundle.parameters,
        learning_rate=golden.learning_rate,
        momentum=golden.momentum,
        proximal_mu=golden.proximal_mu,
    )
    x, y = _float(bundle, "x"), cast("npt.NDArray[np.int64]", _tensor(bundle, "y"))
    losses = np.array([step(x, y) for _ in range(golden.steps)], np.float32)
    differences = {"loss": _distance(losses, _float(bundle, "loss"))}
    for name, array in step.parameters().items():
        differences[name] = _distance(array, _float(bundle, AFTER + name))
    return differences


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
