"""New parameters into a served model, without any model toolkit.

The float parameters of a checkpoint are requantised with numpy (0.4 ms for 25,000), then laid over the initialisers of
the bundle's ONNX graph, or written over their places in its `.tflite` file. Opening the session takes 3 to 10 ms,
during which the old model goes on serving. A runtime is imported only where it is opened: the resident process has
one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, assert_never

from bedside.core.bundle.manifest import INFER, INFER_FLOAT, INFER_TFLITE
from bedside.core.bundle.patch import apply_patches
from bedside.core.bundle.quantise import quantise_parameters, real_tensors
from bedside.core.bundle.verify import Bundle, check_parameters
from bedside.core.errors import MalformedError, UnavailableError
from bedside.ondevice.runtimes import Float32, Runtime, RuntimeName
from bedside.ondevice.runtimes.installed import is_installed
from bedside.service.installation import how_to_install

if TYPE_CHECKING:
    from bedside.ondevice.runtimes.onnx import OnnxRuntime


def int8_runtime(bundle: Bundle, parameters: Mapping[str, Float32], runtime: RuntimeName = "onnx") -> Runtime:
    """Return the deployed form of `parameters`: int8 weights and activations.

    Raises:
        MalformedError: `bad-parameters` when they are not a state of this bundle's model; `no-tflite`; `bad-graph`.
        UnavailableError: `runtime-missing`.
    """
    match runtime:
        case "onnx":
            if not is_installed("onnx"):
                raise onnxruntime_missing()
            from bedside.ondevice.runtimes.onnx import OnnxRuntime

            state = check_parameters(bundle.manifest, parameters)
            return OnnxRuntime(bundle.files[INFER], quantise_parameters(state, bundle.manifest.quantisation))
        case "litert":
            from bedside.ondevice.runtimes.litert import LiteRtRuntime

            window = bundle.manifest.window
            model = patched_tflite(bundle, parameters)
            return LiteRtRuntime(model, (window.length, window.channels), len(bundle.manifest.labels))
        case _:
            assert_never(runtime)


def onnxruntime_missing() -> UnavailableError:
    """The error where onnxruntime is needed and is not here."""
    return UnavailableError(
        "runtime-missing",
        "onnxruntime is not installed; for 32-bit boards there is none, and they can only infer, with tflite-runtime",
        remedy=f"on a 64-bit system {how_to_install('onnxruntime')}; on a 32-bit one "
        f"{how_to_install('bedside[tflite]')} and set "
        'runtime = "litert" in [inference] of agent.toml',
    )


def patched_tflite(bundle: Bundle, parameters: Mapping[str, Float32]) -> bytes:
    """Return the bundle's `infer.tflite` with `parameters` in it.

    Raises:
        MalformedError: `bad-parameters`; `no-tflite` when the bundle has no such file; `bad-manifest` when its table
            does not fit its tensors.
    """
    manifest = bundle.manifest
    if not isinstance(manifest.patches, tuple):
        raise MalformedError(
            "no-tflite",
            f"the bundle {manifest.name} has no {INFER_TFLITE}",
            remedy='have its author build it again, or set runtime = "auto" in [inference] of agent.toml',
        )
    quantised = quantise_parameters(check_parameters(manifest, parameters), manifest.quantisation)
    tensors = quantised | real_tensors(quantised, manifest.quantisation)
    return apply_patches(bundle.files[INFER_TFLITE], manifest.patches, tensors)


def float_runtime(bundle: Bundle, parameters: Mapping[str, Float32]) -> OnnxRuntime:
    """Return the float form of `parameters`, for evaluation and for comparison with int8.

    Raises:
        MalformedError: `bad-parameters` when they are not a state of this bundle's model.
    """
    from bedside.ondevice.runtimes.onnx import OnnxRuntime

    state = check_parameters(bundle.manifest, parameters)
    amax = bundle.manifest.quantisation.amax
    weights = {name: array for name, array in state.items() if name != amax}
    return OnnxRuntime(bundle.files[INFER_FLOAT], weights)
