"""Which runtime serves a bundle on this machine: decided once, noted beside the bundle, decided anew when that changes.

The note is a cache of a measurement: a damaged or missing one is as good as none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from bedside.core.errors import BedsideError
from bedside.core.unreadable import UNREADABLE
from bedside.ondevice.confinement import Limits, read_outcome, run_child
from bedside.ondevice.golden import Replay
from bedside.ondevice.runtimes import Float32, Runtime, RuntimeName
from bedside.ondevice.runtimes.installed import is_installed, runtime_versions
from bedside.ondevice.trial import CHILD, Measured
from bedside.service.files import write_durable
from bedside.service.logs import event

if TYPE_CHECKING:
    from bedside.core.bundle.verify import Bundle

_LOGGER = logging.getLogger(__name__)

Wish = Literal["auto", "onnx", "litert"]
"""`[inference] runtime` of agent.toml."""

_LASTING: Final = frozenset({"", "bad-graph", "bad-manifest", "golden-mismatch", "no-tflite", "runtime-missing"})
"""Outcomes that are the bundle's or the machine's, not the moment's: only these are noted."""

_AVOIDABLE: Final = frozenset({"bad-graph", "runtime-missing", "no-tflite"})
"""Failures of LiteRT that leave the ONNX form."""


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was decided for one bundle.

    Attributes:
        runtime: the one that serves.
        basis: what it rests on: the wish, and the versions of the runtimes.
        measured: of both runtimes; empty when LiteRT was not tried or not believed.
        reason: code of the error for which LiteRT was not taken.
    """

    runtime: RuntimeName
    basis: str
    measured: tuple[Measured, ...] = ()
    reason: str = ""


async def choose(note: Path, replay: Replay, wish: Wish, limits: Limits) -> Choice:
    """Return the choice for a bundle whose golden vectors were replayed, from its note or by a trial.

    Args:
        note: where the choice is kept.
        replay: names the bundle.
        wish: `auto` takes the faster runtime that reproduces the golden vectors.
        limits: of the child.

    Raises:
        BedsideError: LiteRT was asked for and cannot serve: `runtime-missing`, `no-tflite`, `golden-mismatch`,
            `bad-graph`, `child-died`.
    """
    basis = f"{wish} {runtime_versions()}"
    noted = read_choice(note)
    if noted is not None and noted.basis == basis:
        return noted
    if wish == "onnx":
        choice = Choice("onnx", basis)
    elif wish == "auto" and not is_installed("litert"):
        choice = Choice("onnx", basis, reason="runtime-missing")
    else:
        try:
            result = await run_child(CHILD, msgspec.json.encode(replay), limits)
            measured = read_outcome(result, tuple[Measured, ...])
            fastest = min(measured, key=lambda runtime: runtime.median_us).runtime
            choice = Choice("litert" if wish == "litert" else fastest, basis, measured)
        except BedsideError as error:
            if wish == "litert" or not is_installed("onnx"):
                raise
            event(_LOGGER, "litert-not-used", level=logging.WARNING, error=error)
            choice = Choice("onnx", basis, reason=error.code)
    if choice.reason in _LASTING:
        with suppress(BedsideError):  # a disk that takes no writes costs a trial at the next start
            write_durable(note, msgspec.json.encode(choice))
    return choice


def read_choice(note: Path) -> Choice | None:
    """The choice that is noted; None when there is none that can be read."""
    try:
        return msgspec.json.decode(note.read_bytes(), type=Choice)
    except (OSError, *UNREADABLE):
        return None


def open_chosen(bundle: Bundle, parameters: Mapping[str, Float32], note: Path, wish: Wish) -> Runtime:
    """Open parameters on the runtime that was chosen for their bundle.

    Where the choice was ours, parameters that LiteRT cannot run are served by onnxruntime.

    Raises:
        MalformedError: as `int8_runtime`.
        UnavailableError: `runtime-missing`.
    """
    from bedside.ondevice.refresh import int8_runtime

    noted = read_choice(note)
    unnoted: RuntimeName = "onnx" if is_installed("onnx") else "litert"
    name = wish if wish != "auto" else noted.runtime if noted is not None else unnoted
    try:
        return int8_runtime(bundle, parameters, name)
    except BedsideError as error:
        if wish != "auto" or name == "onnx" or error.code not in _AVOIDABLE or not is_installed("onnx"):
            raise
        event(_LOGGER, "litert-not-used", level=logging.WARNING, error=error)
        return int8_runtime(bundle, parameters, "onnx")
