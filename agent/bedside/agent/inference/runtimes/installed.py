"""Which runtimes this machine has, without loading one.

A 64-bit device has onnxruntime, and LiteRT where the extra was installed. For a 32-bit board there is no onnxruntime:
with tflite-runtime it verifies and serves bundles, and does not train.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from bedside.agent.inference.runtimes import RuntimeName

_PACKAGES: Final[Mapping[RuntimeName, tuple[str, ...]]] = {
    "onnx": ("onnxruntime",),
    "litert": ("ai-edge-litert", "tflite-runtime"),
}


def is_installed(runtime: RuntimeName) -> bool:
    """Whether a package of this runtime is here; whether it runs is seen when it is opened."""
    return any(version_of(package) for package in _PACKAGES[runtime])


def runtime_versions() -> str:
    """The runtimes, and numpy, on which they depend, with their versions: what a measurement rests on."""
    packages = [package for packages in _PACKAGES.values() for package in packages]
    return " ".join(f"{package}={version_of(package) or 'none'}" for package in (*packages, "numpy"))


def version_of(package: str) -> str:
    """Version of an installed package; empty when it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
