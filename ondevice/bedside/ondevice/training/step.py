"""The training step: `train.onnx` with its parameters and optimiser state kept inside onnxruntime.

Outputs become the next step's inputs without a copy; scalars are fed as arrays without axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bedside.core.bundle.manifest import TRAIN
from bedside.core.bundle.verify import Bundle, check_parameters
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.runtimes.onnx import open_session, session_options

_NEXT: Final = ".next"
_START: Final = "start."
_LOSS: Final = "loss"


class TrainingStep:
    """One model in training. Every call moves it by one batch.

    Args:
        bundle: brings the graph and the names of its state.
        start: parameters to begin with; also what a FedProx term pulls towards.
        learning_rate: of SGD.
        momentum: of SGD, 0 for none.
        proximal_mu: weight of the FedProx term, 0 for FedAvg.
    """

    def __init__(
        self,
        bundle: Bundle,
        start: Mapping[str, Float32],
        *,
        learning_rate: float,
        momentum: float,
        proximal_mu: float,
    ) -> None:
        manifest = bundle.manifest
        checked = check_parameters(manifest, start)
        self._names = tuple(spec.name for spec in manifest.parameters)
        self._session = open_session(bundle.files[TRAIN], session_options())
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._state = {name: _value(array) for name, array in checked.items()}
        self._state |= {spec.name: _value(np.zeros(spec.shape, np.float32)) for spec in manifest.optimiser}
        self._fixed = {_START + name: self._state[name] for name in self._names if name != manifest.quantisation.amax}
        rates = {"lr": learning_rate, "momentum": momentum, "mu": proximal_mu}
        self._fixed |= {name: _value(np.array(rate, np.float32)) for name, rate in rates.items()}

    def __call__(self, x: Float32, y: npt.NDArray[np.int64]) -> float:
        """Train on one batch: windows (N, L, C) and classes (N,); returns the mean loss before the step."""
        feeds = {"x": _value(x), "y": _value(y), **self._state, **self._fixed}
        outputs = dict(zip(self._outputs, self._session.run_with_ort_values(self._outputs, feeds), strict=True))
        loss = float(outputs.pop(_LOSS).numpy())
        self._state = {name.removesuffix(_NEXT): value for name, value in outputs.items()}
        return loss

    def parameters(self) -> dict[str, Float32]:
        """Copies of the parameters as they are now."""
        return {name: np.array(self._state[name].numpy(), np.float32) for name in self._names}


def _value(array: Float32 | npt.NDArray[np.int64]) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(np.array(array, order="C"))
