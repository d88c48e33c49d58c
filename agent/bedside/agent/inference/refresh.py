"""New parameters into a served model, without any model toolkit.

The float parameters of a checkpoint are requantised with numpy (0.4 ms for 25,000) and laid over the initialisers of
the bundle's int8 graph; opening the session takes 3 to 10 ms, during which the old model goes on serving.
"""

from __future__ import annotations

from collections.abc import Mapping

from bedside.agent.inference.runtimes import Float32
from bedside.agent.inference.runtimes.onnx import OnnxRuntime
from bedside.core.bundle.manifest import INFER, INFER_FLOAT
from bedside.core.bundle.quantise import quantise_parameters
from bedside.core.bundle.verify import Bundle, check_parameters


def int8_runtime(bundle: Bundle, parameters: Mapping[str, Float32]) -> OnnxRuntime:
    """Return the deployed form of `parameters`: int8 weights and activations.

    Raises:
        MalformedError: `bad-parameters` when they are not a state of this bundle's model.
    """
    state = check_parameters(bundle.manifest, parameters)
    return OnnxRuntime(bundle.files[INFER], quantise_parameters(state, bundle.manifest.quantisation))


def float_runtime(bundle: Bundle, parameters: Mapping[str, Float32]) -> OnnxRuntime:
    """Return the float form of `parameters`, for evaluation and for comparison with int8.

    Raises:
        MalformedError: `bad-parameters` when they are not a state of this bundle's model.
    """
    state = check_parameters(bundle.manifest, parameters)
    amax = bundle.manifest.quantisation.amax
    weights = {name: array for name, array in state.items() if name != amax}
    return OnnxRuntime(bundle.files[INFER_FLOAT], weights)
