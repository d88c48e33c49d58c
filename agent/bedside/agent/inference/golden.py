"""Replaying a bundle's golden vectors on this machine, in a child, before the bundle is believed.

A graph may load and still compute something else than its author saw: a converter's mistake, a kernel that saturates,
a changed onnxruntime. The replay trains the golden steps from the bundle's own parameters, compares loss and
parameters with the author's, then requantises the author's parameters and compares logits and classes.

The golden tensors: `x`, `y` the training batch; `loss` (steps,); `after.<parameter>`; `probe` (M, L, C) windows;
`logits`, `logits_float` (M, classes) and `classes` (M,) of `probe` under the `after` parameters.
"""

from __future__ import annotations

import sys
from typing import Final

import msgspec

from bedside.agent.inference.confinement import (
    Limits,
    confine,
    read_job,
    report_error,
    report_result,
    run_child,
)
from bedside.core.errors import BedsideError, MalformedError, TrustError

CHILD: Final = "bedside.agent.inference.golden"
DEFAULT_LIMITS: Final = Limits(address_space_bytes=2 << 30, timeout_s=60)


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    return msgspec.json.decode(result, type=Compared)


def main() -> None:
    """The child: confine, verify, replay, report."""
    confine(sys.argv[1:])
    try:
        report_result(_run(read_job()))
    except BedsideError as error:
        report_error(error)


def _run(data: bytes) -> Compared:
    from pathlib import Path

    from bedside.agent.inference.replay import compare_golden
    from bedside.core.bundle.verify import verify_archive

    try:
        replay = msgspec.json.decode(data, type=Replay)
        archive = Path(replay.bundle).read_bytes()
    except (msgspec.DecodeError, OSError) as error:
        raise MalformedError("bad-job", f"the replay cannot begin: {error}") from error
    bundle = verify_archive(archive, [bytes.fromhex(key) for key in replay.signer_pks])
    differences = compare_golden(bundle)
    for tensor, difference in differences.items():
        if not difference <= bundle.manifest.tolerance(tensor):
            raise golden_mismatch(bundle.manifest.name, tensor, difference, bundle.manifest.tolerance(tensor))
    return Compared(bundle.digest.hex(), differences)


def golden_mismatch(model: str, tensor: str, difference: float, tolerance: float) -> TrustError:
    """The error for a tensor that this machine computes otherwise."""
    return TrustError(
        "golden-mismatch",
        f"{model} computes {tensor} {difference:.3g} away from its golden vector here, {tolerance:.3g} is allowed",
        remedy="do not use this bundle on this machine; have its author rebuild it for this onnxruntime",
    )


if __name__ == "__main__":
    main()
