"""Which runtimes this machine has, without loading one.

A 64-bit device has onnxruntime, and LiteRT where the extra was installed. For a 32-bit board there is no onnxruntime:
with tflite-runtime it verifies and serves bundles, and does not train.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bedside.ondevice.runtimes import RuntimeName

_MODULES: Final[Mapping[RuntimeName, tuple[str, ...]]] = {
    "onnx": ("onnxruntime",),
    "litert": ("ai_edge_litert", "tflite_runtime"),
}


def is_installed(runtime: RuntimeName) -> bool:
    """Whether a package of this runtime is here; whether it runs is seen when it is opened."""
    return any(version_of(module) for module in _MODULES[runtime])


def runtime_versions() -> str:
    """The runtimes, and numpy, on which they depend, with their versions: what a measurement rests on."""
    modules = [module for modules in _MODULES.values() for module in modules]
    return " ".join(f"{module}={version_of(module) or 'none'}" for module in (*modules, "numpy"))


def version_of(module: str) -> str:
    """Version of an installed package; empty when it is not here, `unknown` when nothing beside it tells.

    The folder that installers leave beside a package says it too; importlib.metadata costs 3 MB.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    noted = sorted(path.name for path in Path(spec.origin).parents[1].glob(f"{module}-*.dist-info"))
    return noted[-1].removeprefix(f"{module}-").removesuffix(".dist-info") if noted else "unknown"
