"""The training step: a training graph with its parameters and optimiser state kept inside onnxruntime.

Outputs become the next step's inputs without a copy; scalars are fed as arrays without axes. At level Q2 the weights
that are trained live in there as int8: only what is asked for is turned into real numbers. The float parameters that a
training began with stay in memory beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bedside.core.bundle.manifest import Golden
from bedside.core.bundle.parameters import TensorSpec
from bedside.core.bundle.tensors import Array, Tensors
from bedside.core.bundle.training import LOSS, NEXT, NOISE, SCALE, START, TrainingGraph, optimiser_tensors
from bedside.core.bundle.verify import Bundle, check_parameters
from bedside.core.errors import MalformedError
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.runtimes.onnx import bad_graph, open_session, session_options
from bedside.ondevice.training.grid import Noise, from_grid, grid_scale, to_grid

_INT8: Final = "tensor(int8)"

Targets = npt.NDArray[np.int64] | Float32
"""Classes (N,) int64; of several labels or a regression (N, outputs) float32."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Scalars of a training step.

    Attributes:
        learning_rate: of the optimiser.
        momentum: of SGD; Adam's first decay rate.
        proximal_mu: weight of the FedProx term, 0 for FedAvg.
        gradient_clip: largest L2 norm of the whole gradient, 0 for any.
    """

    learning_rate: float
    momentum: float = 0.0
    proximal_mu: float = 0.0
    gradient_clip: float = 0.0

    @classmethod
    def of_golden(cls, golden: Golden) -> Rates:
        """The rates with which golden vectors were made."""
        return cls(golden.learning_rate, golden.momentum, golden.proximal_mu, golden.gradient_clip)


class TrainingStep:
    """One model in training. Every call moves it by one batch.

    Args:
        graph: bytes of the training graph, or the session that they were opened in.
        start: parameters to begin with, float32; also what a FedProx term pulls towards.
        optimiser: the optimiser's tensors, zero at the start.
        rates: of every step.
        noise_seed: of the rounding at level Q2, from 0; each device and round wants another.
    """

    def __init__(
        self,
        graph: bytes | ort.InferenceSession,
        start: Mapping[str, Float32],
        optimiser: Sequence[TensorSpec],
        rates: Rates,
        noise_seed: int = 0,
    ) -> None:
        self._session = open_session(graph, session_options()) if isinstance(graph, bytes) else graph
        self._outputs = [output.name for output in self._session.get_outputs()]
        wanted = {put.name: put for put in self._session.get_inputs()}
        moved = {name.removesuffix(NEXT) for name in self._outputs}
        self._noise, self._noise_count = Noise(noise_seed), wanted[NOISE].shape[0] if NOISE in wanted else 0
        self._scales = {
            name: grid_scale(array) for name, array in start.items() if name in wanted and wanted[name].type == _INT8
        }
        scalars = {
            "lr": rates.learning_rate,
            "momentum": rates.momentum,
            "mu": rates.proximal_mu,
            "clip": rates.gradient_clip or float("inf"),
        }
        known = {name: _value(np.array(rate, np.float32)) for name, rate in scalars.items()}
        known |= {spec.name: _value(np.zeros(spec.shape, np.float32)) for spec in optimiser}
        known |= {name + SCALE: _value(scale) for name, scale in self._scales.items()}
        for name, array in start.items():
            scale = self._scales.get(name)
            known[name] = _value(array if scale is None else to_grid(array, scale, self._noise))
            known[START + name] = known[name]
        self._start = start
        self._state = {name: known[name] for name in moved if name in known}
        self._fixed = {name: known[name] for name in wanted.keys() - moved if name in known}

    def __call__(self, x: Float32, y: Targets) -> float:
        """Train on one batch, windows (N, L, C) and what is to be learnt; returns the mean loss before the step.

        Raises:
            MalformedError: `bad-graph`: onnxruntime fails on it.
        """
        feeds = {"x": _value(x), "y": _value(y), **self._state, **self._fixed}
        if self._noise_count:
            feeds[NOISE] = _value(self._noise.draw(self._noise_count))
        try:
            values = self._session.run_with_ort_values(self._outputs, feeds)
            outputs = dict(zip(self._outputs, values, strict=True))
            loss = float(outputs.pop(LOSS).numpy())
        except Exception as error:  # onnxruntime raises classes of its own, without a common root
            raise bad_graph(f"cannot run the training graph: {error}") from error
        self._state = {name.removesuffix(NEXT): value for name, value in outputs.items()}
        return loss

    def parameters(self) -> dict[str, Float32]:
        """Copies of the parameters as they are now, float32, in the order in which they came."""
        return {name: self._real(name) for name in self._start}

    def _real(self, name: str) -> Float32:
        if name not in self._state:
            return np.array(self._start[name], np.float32)
        now = self._state[name].numpy()
        return from_grid(now, self._scales[name]) if name in self._scales else np.array(now, np.float32)

    def state(self) -> dict[str, Array]:
        """Copies of all that a later step depends on: parameters as kept, optimiser state, the place in the noise."""
        state: dict[str, Array] = {name: np.array(self._state[name].numpy()) for name in sorted(self._state)}
        return state | {NOISE: np.array(self._noise.position, np.int64)}

    def restore(self, state: Tensors) -> None:
        """Go on from what `state` returned, in this process or another: the next steps are the same to the bit.

        Raises:
            MalformedError: `bad-training-state`; nothing was changed.
        """
        known = {name: (list(array.shape), array.dtype) for name, array in self.state().items()}
        if {name: (list(array.shape), array.dtype) for name, array in state.items()} != known or state[NOISE] < 0:
            raise MalformedError("bad-training-state", "the kept state of a training is not this model's")
        self._noise.seek(int(state[NOISE]))
        self._state = {name: _value(array) for name, array in state.items() if name != NOISE}


def open_step(
    bundle: Bundle,
    graph: TrainingGraph,
    start: Mapping[str, Float32],
    rates: Rates,
    noise_seed: int = 0,
    session: ort.InferenceSession | None = None,
) -> TrainingStep:
    """One of a bundle's training graphs, ready to begin at `start`; `session` has that graph open already.

    Raises:
        MalformedError: `bad-parameters` when `start` is not a state of this model; `bad-graph`.
    """
    manifest = bundle.manifest
    checked = check_parameters(manifest, start)
    optimiser = optimiser_tensors(graph, manifest.changed(graph.suffix))
    return TrainingStep(session or bundle.files[graph.file], checked, optimiser, rates, noise_seed)


def _value(array: npt.NDArray[np.generic]) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(np.array(array, order="C"))
