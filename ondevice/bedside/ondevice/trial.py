"""LiteRT on trial in a child: does it reproduce the golden vectors here, and which runtime is the faster one?

What a bundle's `.tflite` does to an interpreter is seen here first: a crash, a loop or a hunger for memory ends the
child. The bundle's ONNX form was replayed before and does not depend on it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import msgspec

from bedside.core.errors import BedsideError
from bedside.ondevice.confinement import (
    confine,
    decode_job,
    forbid_writing,
    read_job,
    report_error,
    report_progress,
    report_result,
)
from bedside.ondevice.golden import Replay, believed_bundle, check_differences
from bedside.ondevice.runtimes import RuntimeName

if TYPE_CHECKING:
    from bedside.core.clock import Clock
    from bedside.ondevice.runtimes import Float32, Runtime

CHILD: Final = "bedside.ondevice.trial"
_WARM_WINDOWS: Final = 50
_WINDOWS: Final = 500


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long one window took, microseconds.

    Attributes:
        runtime: which one.
        median_us: half of the windows took no longer.
        p99_us: 99 of 100 took no longer.
    """

    runtime: RuntimeName
    median_us: float
    p99_us: float


class Trial(Replay, frozen=True, forbid_unknown_fields=True):
    """Which runtimes are tried; LiteRT must be here then, onnxruntime need not.

    Attributes:
        runtimes: of the bundle.
    """

    runtimes: tuple[RuntimeName, ...] = ("litert", "onnx")


def main() -> None:
    """The child: confine, verify, replay, measure, report. Its progress is LiteRT's difference per golden tensor."""
    confine(sys.argv[1:])
    forbid_writing()
    try:
        report_result(_run(read_job()))
    except BedsideError as error:
        report_error(error)


def _run(data: bytes) -> tuple[Measured, ...]:
    from bedside.core.bundle.manifest import INFER_TFLITE
    from bedside.ondevice.refresh import int8_runtime
    from bedside.ondevice.replay import blaming, compare_litert, golden_parameters, golden_windows
    from bedside.ondevice.runtimes.installed import is_installed
    from bedside.service.platform import SystemClock

    bundle, wanted = believed_bundle(data), decode_job(data, Trial).runtimes
    after = golden_parameters(bundle)
    tried = []
    if "litert" in wanted:
        with blaming(INFER_TFLITE):
            tried.append(int8_runtime(bundle, after, "litert"))
        differences = compare_litert(bundle, tried[0])
        check_differences(bundle.manifest, differences)
        report_progress(differences)
    if "onnx" in wanted and is_installed("onnx"):
        tried.append(int8_runtime(bundle, after, "onnx"))
    return measure(tuple(tried), golden_windows(bundle), SystemClock())


def measure(runtimes: tuple[Runtime, ...], windows: Float32, clock: Clock) -> tuple[Measured, ...]:
    """Time single windows on each runtime in turn, so that what else the machine does meets all of them.

    Args:
        runtimes: of one model.
        windows: (M, L, C) float32; used over and over.
        clock: its monotonic time is read around each window.
    """
    import numpy as np

    taken_us = np.zeros((len(runtimes), _WARM_WINDOWS + _WINDOWS))
    for count in range(_WARM_WINDOWS + _WINDOWS):
        window = windows[count % len(windows)][np.newaxis]
        for number, runtime in enumerate(runtimes):
            began_s = clock.monotonic_s()
            runtime.predict(window)
            taken_us[number, count] = (clock.monotonic_s() - began_s) * 1e6
    rows = np.percentile(taken_us[:, _WARM_WINDOWS:], (50, 99), axis=1).T
    return tuple(
        Measured(runtime.name, round(float(median), 1), round(float(p99), 1))
        for runtime, (median, p99) in zip(runtimes, rows, strict=True)
    )


if __name__ == "__main__":
    main()
