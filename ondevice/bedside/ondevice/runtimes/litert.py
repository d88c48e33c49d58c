"""LiteRT on one core: a third of onnxruntime's time for a window of these nets, and a third of its memory.

ai-edge-litert where its wheel exists; else its predecessor tflite-runtime, which has the same interface and reads the
same file.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any, Final

import numpy as np

from bedside.core.errors import MalformedError, UnavailableError
from bedside.ondevice.runtimes import Float32, RuntimeName
from bedside.service.installation import how_to_install

_FAULTS: Final = (RuntimeError, ValueError, IndexError)
"""What comes of foreign bytes: the last where a tensor had another form after it was computed than was said."""

_MODULES: Final = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")


class LiteRtRuntime:
    """One interpreter over the bytes of `infer.tflite`, which has run once when this returns.

    Running it is the proof that there is a runtime: tflite-runtime imports under numpy 2 and fails only here.

    Args:
        model: the file, with the parameters to serve.
        shape: (L, C) of its windows.
        classes: number of its logits.

    Raises:
        UnavailableError: `runtime-missing`.
        MalformedError: `bad-graph`: the runtime cannot run the file, or it is not a net of this shape.
    """

    name: RuntimeName = "litert"

    def __init__(self, model: bytes, shape: tuple[int, int], classes: int) -> None:
        interpreter = _interpreter_class()
        self._model = model  # the interpreter reads from these bytes for as long as it lives
        try:
            self._interpreter = interpreter(model_content=model, num_threads=1)
            self._interpreter.allocate_tensors()
            window, logits = (
                _only(self._interpreter.get_input_details()),
                _only(self._interpreter.get_output_details()),
            )
        except SystemError as error:
            raise runtime_missing("LiteRT is installed beside a numpy that it was not built for") from error
        except _FAULTS as error:
            raise _bad(str(error)) from error
        for detail, wanted in ((window, (1, *shape)), (logits, (1, classes))):
            if tuple(detail["shape"]) != wanted or detail["dtype"] is not np.float32:
                raise _bad(f"a tensor of it is {detail['dtype'].__name__}{tuple(detail['shape'])}, not float32{wanted}")
        self._window, self._logits, self._classes = int(window["index"]), int(logits["index"]), classes
        self.predict(np.zeros((1, *shape), np.float32))

    def predict(self, x: Float32) -> Float32:
        """Return logits (N, classes) of windows `x` (N, L, C), both float32, one window after the other.

        Raises:
            MalformedError: `bad-graph`: the runtime fails on it.
        """
        answers = np.empty((len(x), self._classes), np.float32)
        try:
            for number in range(len(x)):
                self._interpreter.set_tensor(self._window, x[number : number + 1])
                self._interpreter.invoke()
                answers[number] = self._interpreter.get_tensor(self._logits)[0]
        except _FAULTS as error:
            raise _bad(str(error)) from error
        return answers


def runtime_missing(sentence: str) -> UnavailableError:
    """The error where LiteRT was asked for and cannot be had."""
    return UnavailableError(
        "runtime-missing",
        sentence,
        remedy=f"{how_to_install('bedside[litert]')} (on Python 3.11 boards without its wheel: 'bedside[tflite]'), "
        'or set runtime = "onnx" in [inference] of agent.toml',
    )


def _interpreter_class() -> Any:
    _skip_second_library()
    for module in _MODULES:
        try:
            return importlib.import_module(module).Interpreter
        except ImportError:
            continue
    raise runtime_missing("LiteRT is not installed")


def _skip_second_library() -> None:
    """Enter the package without running its first module, which loads an interface beside the interpreter (1.7 MB)."""
    package = _MODULES[0].partition(".")[0]
    if package not in sys.modules and (spec := importlib.util.find_spec(package)) is not None:
        sys.modules[package] = importlib.util.module_from_spec(spec)


def _only(details: list[dict[str, Any]]) -> dict[str, Any]:
    if len(details) != 1:
        raise ValueError(f"it has {len(details)} inputs or outputs, not one")
    return details[0]


def _bad(sentence: str) -> MalformedError:
    return MalformedError(
        "bad-graph", f"LiteRT cannot run the graph: {sentence[:200]}", remedy="build the bundle for this version of it"
    )
