"""The author's own runs of the graphs: plain numpy in and out, one thread, so that a rebuild gives the same bytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter

from bedside.authoring.training_graph import NEXT, START
from bedside.core.bundle.manifest import TensorSpec
from bedside.core.bundle.tensors import Array
from bedside.core.errors import MalformedError

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rates:
    """Scalars of a training step: learning rate, momentum, weight of the FedProx term."""

    learning_rate: float
    momentum: float = 0.0
    proximal_mu: float = 0.0


class TrainingRun:
    """`train.onnx` with its state.

    Args:
        graph: bytes of the training graph.
        parameters: to start from, and what a FedProx term pulls towards.
        optimiser: the optimiser's tensors, zero at the start.
        rates: of every step.
    """

    def __init__(
        self, graph: bytes, parameters: Mapping[str, Float32], optimiser: Sequence[TensorSpec], rates: Rates
    ) -> None:
        self._session = open_session(graph)
        self._outputs = [output.name for output in self._session.get_outputs()]
        wanted = {put.name for put in self._session.get_inputs()}
        self._names = tuple(parameters)
        self._state: dict[str, Float32] = dict(parameters)
        self._state |= {spec.name: np.zeros(spec.shape, np.float32) for spec in optimiser}
        self._fixed = {START + name: array for name, array in parameters.items() if START + name in wanted}
        scalars = {"lr": rates.learning_rate, "momentum": rates.momentum, "mu": rates.proximal_mu}
        self._fixed |= {name: np.array(value, np.float32) for name, value in scalars.items()}

    def step(self, x: Float32, y: Int64) -> float:
        """Train on windows (N, L, C) and classes (N,); returns the mean loss before the step."""
        values = self._session.run(self._outputs, {"x": x, "y": y, **self._state, **self._fixed})
        outputs = dict(zip(self._outputs, values, strict=True))
        loss = float(outputs.pop("loss"))
        self._state = {name.removesuffix(NEXT): np.asarray(value, np.float32) for name, value in outputs.items()}
        return loss

    def parameters(self) -> dict[str, Float32]:
        """The parameters as they are now, in the order in which they came."""
        return {name: self._state[name] for name in self._names}


def predict(graph: bytes, initialisers: Mapping[str, Array], x: Float32) -> Float32:
    """Return logits (N, classes) of windows `x` (N, L, C), with `initialisers` laid over the graph's own."""
    values = {
        name: ort.OrtValue.ortvalue_from_numpy(np.array(array, order="C")) for name, array in initialisers.items()
    }
    session = open_session(graph, values)
    return cast("Float32", session.run(["logits"], {"x": x})[0])


def predict_tflite(model: bytes, x: Float32) -> Float32:
    """Return logits (N, classes) of windows `x` (N, L, C) from `infer.tflite` as it stands.

    Raises:
        MalformedError: `bad-graph`: LiteRT cannot run it.
    """
    try:
        with _without_notices():
            interpreter = Interpreter(model_content=model, num_threads=1)
            interpreter.allocate_tensors()
        window, logits = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
        rows = []
        for example in x:
            interpreter.set_tensor(window, example[np.newaxis])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(logits))
    except (ValueError, RuntimeError) as error:
        raise MalformedError("bad-graph", f"LiteRT cannot run infer.tflite: {str(error)[:200]}") from error
    return np.concatenate(rows).astype(np.float32, copy=False)


@contextmanager
def _without_notices() -> Iterator[None]:
    """Keep LiteRT's C++ from writing on standard error which delegate it made; it has no other switch."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def open_session(graph: bytes, initialisers: Mapping[str, ort.OrtValue] | None = None) -> ort.InferenceSession:
    """Open a session on one thread; the caller keeps `initialisers` alive as long as the session.

    Raises:
        MalformedError: `bad-graph`: onnxruntime cannot load it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for name, value in (initialisers or {}).items():
        options.add_initializer(name, value)
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, without a common root
        raise MalformedError(
            "bad-graph", f"onnxruntime {ort.__version__} cannot load the graph: {str(error)[:200]}"
        ) from error
