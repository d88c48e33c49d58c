"""The runtimes, each by really building an interpreter and replaying golden vectors in a limited child."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from bedside.agent.doctor.configuration import config_of
from bedside.core.errors import BedsideError
from bedside.ondevice.runtimes import RuntimeName
from bedside.ondevice.runtimes.installed import is_installed, version_of
from bedside.ondevice.self_check import self_check
from bedside.service.doctor.check import Check, Finding, Place, bad, doubtful, good


def _onnx(place: Place) -> Iterator[Finding]:
    if is_installed("onnx"):
        words = f"onnxruntime {version_of('onnxruntime')}"
        failure, difference = _try("onnx")
        yield (
            bad(f"{words}: {failure}")
            if failure
            else good(f"{words} trains and infers, off its golden vectors by {difference:.1g} at most")
        )
    elif is_installed("litert"):
        yield doubtful("onnxruntime is not installed: this device infers, and cannot train")
    else:
        yield bad("neither onnxruntime nor LiteRT is installed: this device can run no model")


def _litert(place: Place) -> Iterator[Finding]:
    wanted = (config := config_of(place)) is not None and config.inference.runtime == "litert"
    if not is_installed("litert"):
        if wanted:
            yield bad("agent.toml asks for LiteRT, which is not installed")
        return
    package = next(one for one in ("ai_edge_litert", "tflite_runtime") if version_of(one))
    words = f"{package} {version_of(package)}"
    failure, median_us = _try("litert")
    if not failure:
        yield good(f"{words} infers, {median_us:.0f} µs a window")
    elif wanted or not is_installed("onnx"):
        yield bad(f"{words}: {failure}")
    else:
        yield doubtful(f"{words}: {failure}; onnxruntime serves in its place")


def _try(runtime: RuntimeName) -> tuple[str, float]:
    """What it failed with, empty where it did not; and what it measured."""
    try:
        return "", asyncio.run(self_check(runtime))
    except BedsideError as error:
        return f"{error.sentence} [{error.code}]", 0.0


ONNX: Final = Check(
    "onnxruntime",
    "that it trains and infers as it should, in a child: a net that comes with the program, against golden vectors",
    "apt install --reinstall bedside-agent; free memory; where the processor is too old, another machine",
    _onnx,
)
LITERT: Final = Check(
    "litert",
    "the same for LiteRT or tflite-runtime, which only infer",
    'apt install --reinstall bedside-agent, or set runtime = "onnx" in [inference] of agent.toml',
    _litert,
)
