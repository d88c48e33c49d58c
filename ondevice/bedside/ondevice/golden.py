"""Replaying a bundle's golden vectors on this machine, in a child, before the bundle is believed.

A graph may load and still compute something else than its author saw: a converter's mistake, a kernel that saturates,
a changed onnxruntime. The replay trains the golden steps from the bundle's own parameters, compares loss and
parameters with the author's, then requantises the author's parameters and compares logits and classes.

The golden tensors: `x`, `y` the training batch; for each training graph, by its key, `<key>/loss` (steps,) and
`<key>/<parameter>` after the steps; `probe` (M, L, C) windows; `logits`, `logits_float` (M, outputs) and `classes` (M,)
of `probe` under the parameters after the steps of the first graph.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from bedside.core.errors import BedsideError, MalformedError, TrustError
from bedside.ondevice.confinement import (
    Limits,
    confine,
    decode_job,
    forbid_writing,
    read_job,
    read_outcome,
    report_error,
    report_result,
    run_child,
)

if TYPE_CHECKING:
    from bedside.core.bundle.manifest import Manifest
    from bedside.core.bundle.verify import Bundle

CHILD: Final = "bedside.ondevice.golden"
DEFAULT_LIMITS: Final = Limits(address_space_bytes=2 << 30, timeout_s=60)


class Replay(msgspec.Struct, frozen=True):
    """Which bundle to replay: the path of its tar, and the accepted signers' keys in hexadecimal."""

    bundle: str
    signer_pks: tuple[str, ...]


class Compared(msgspec.Struct, frozen=True):
    """What the replay found: the bundle's digest in hexadecimal, and the largest difference per tensor."""

    digest: str
    differences: dict[str, float]


async def replay_golden(replay: Replay, limits: Limits = DEFAULT_LIMITS) -> Compared:
    """Replay a bundle's golden vectors in a limited child.

    Raises:
        TrustError: `golden-mismatch`, `unknown-signer`, `bundle-file`.
        MalformedError: the bundle, its graphs or its golden vectors are not what they claim to be.
        UnavailableError: `child-timeout`, `child-died`.
    """
    result = await run_child(CHILD, msgspec.json.encode(replay), limits)
    return read_outcome(result, Compared)


def main() -> None:
    """The child: confine, verify, replay, report."""
    confine(sys.argv[1:])
    forbid_writing()
    try:
        report_result(_run(read_job()))
    except BedsideError as error:
        report_error(error)


def _run(data: bytes) -> Compared:
    from bedside.core.bundle.manifest import INFER_TFLITE
    from bedside.ondevice.runtimes.installed import is_installed

    bundle = believed_bundle(data)
    if is_installed("onnx"):
        from bedside.ondevice.replay import compare_golden

        differences = compare_golden(bundle)
    else:  # a board that can only infer believes what it will run
        from bedside.ondevice.refresh import int8_runtime
        from bedside.ondevice.replay import blaming, compare_litert, golden_parameters

        after = golden_parameters(bundle)
        with blaming(INFER_TFLITE):
            runtime = int8_runtime(bundle, after, "litert")
        differences = compare_litert(bundle, runtime)
    check_differences(bundle.manifest, differences)
    return Compared(bundle.digest.hex(), differences)


def believed_bundle(data: bytes) -> Bundle:
    """In a child: read and verify the bundle that a `Replay` names.

    Raises:
        MalformedError: `bad-job`, and from the bundle.
        TrustError: `unknown-signer`, `bundle-file`.
    """
    from pathlib import Path

    from bedside.core.bundle.verify import verify_archive
    from bedside.core.limits import MAX_BLOB_BYTES
    from bedside.service.files import read_regular

    replay = decode_job(data, Replay)
    try:
        archive = read_regular(Path(replay.bundle), MAX_BLOB_BYTES)
        signer_pks = [bytes.fromhex(key) for key in replay.signer_pks]
    except (ValueError, OSError) as error:
        raise MalformedError("bad-job", f"the replay cannot begin: {error}") from error
    return verify_archive(archive, signer_pks)


def check_differences(manifest: Manifest, differences: Mapping[str, float]) -> None:
    """Check that this machine computes what the author saw.

    Raises:
        TrustError: `golden-mismatch`.
    """
    for tensor, difference in differences.items():
        allowed = manifest.tolerance(tensor)
        if not difference <= allowed:
            raise TrustError(
                "golden-mismatch",
                f"{manifest.name} computes {tensor} {difference:.3g} away from its golden vector here, "
                f"{allowed:.3g} is allowed",
                remedy="do not use this bundle on this machine; have its author rebuild it for this runtime",
            )


if __name__ == "__main__":
    main()
