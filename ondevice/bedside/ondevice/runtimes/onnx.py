"""The ordinary onnxruntime on one core, kept small: one thread, no spinning, an arena that grows as asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

import numpy as np
import onnxruntime as ort

from bedside.core.bundle.onnx_file import check_self_contained
from bedside.core.bundle.tensors import Array
from bedside.core.errors import MalformedError
from bedside.ondevice.runtimes import Float32, RuntimeName

_ERRORS_ONLY: Final = 3
_PROVIDERS: Final = [("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})]


class OnnxRuntime:
    """One inference session over model bytes, with initialisers laid over those in the model."""

    name: RuntimeName = "onnx"

    def __init__(self, model: bytes, initialisers: Mapping[str, Array]) -> None:
        options = session_options()
        # The session reads these buffers for as long as it lives: without references, predictions go silently wrong.
        self._values = {
            name: ort.OrtValue.ortvalue_from_numpy(np.array(array, order="C")) for name, array in initialisers.items()
        }
        for name, value in self._values.items():
            options.add_initializer(name, value)
        self._session = open_session(model, options)

    def predict(self, x: Float32) -> Float32:
        """Return logits (N, classes) of windows `x` (N, L, C), both float32.

        Raises:
            MalformedError: `bad-graph`: onnxruntime fails on it.
        """
        try:
            return cast("Float32", self._session.run(["logits"], {"x": x})[0])
        except Exception as error:  # as in `open_session`
            raise bad_graph(f"cannot run the graph: {error}") from error


def session_options() -> ort.SessionOptions:
    """Options of every session in the agent: one thread, which sleeps when there is nothing to do."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.load_model_format", "ONNX")  # what was looked through is what is read
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def open_session(model: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    """Open a session over model bytes.

    Raises:
        MalformedError: `bad-graph`: onnxruntime cannot load it, or part of it would be read from another file.
    """
    check_self_contained(model)
    try:
        # Falling back would be to the same provider, and told on standard output, which is not onnxruntime's.
        return ort.InferenceSession(model, options, providers=_PROVIDERS, enable_fallback=0)
    except Exception as error:  # onnxruntime raises classes of its own, without a common root
        raise bad_graph(f"cannot load the graph: {error}") from error


def bad_graph(what: str) -> MalformedError:
    """The error where onnxruntime and a graph do not go together."""
    return MalformedError(
        "bad-graph",
        f"onnxruntime {ort.__version__} {what[:250]}",
        remedy="build the bundle for this version of onnxruntime",
    )
