"""Replaying a bundle's golden vectors as a device does: in limited children, before anything of it is believed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bedside.authoring.children import ask_child
from bedside.core.bundle.archive import unpack_bundle
from bedside.core.bundle.manifest import INFER_TFLITE
from bedside.core.errors import UnavailableError
from bedside.ondevice import golden, trial
from bedside.ondevice.confinement import Limits, read_outcome
from bedside.ondevice.golden import DEFAULT_LIMITS, Compared
from bedside.ondevice.runtimes import RuntimeName
from bedside.ondevice.runtimes.installed import is_installed
from bedside.ondevice.trial import Measured, Trial


class Replayed(msgspec.Struct, frozen=True):
    """What a bundle did here.

    Attributes:
        differences: largest absolute difference per golden tensor; `logits_litert` where LiteRT was tried.
        measured: how long one window takes on each runtime.
        missing: runtimes on which it was not tried, and why not.
    """

    differences: dict[str, float]
    measured: tuple[Measured, ...]
    missing: dict[RuntimeName, str]


def replay_in_children(tar: bytes, signer_pks: Sequence[bytes], limits: Limits = DEFAULT_LIMITS) -> Replayed:
    """Replay on onnxruntime, then on LiteRT where it is installed and the bundle has its form.

    Raises:
        TrustError: `golden-mismatch`, and from the bundle.
        MalformedError: `bad-graph`, `bad-golden`, and from the bundle.
        UnavailableError: `child-died`, `child-timeout`.
    """
    missing: dict[RuntimeName, str] = {}
    if INFER_TFLITE not in unpack_bundle(tar):
        missing["litert"] = f"the bundle has no {INFER_TFLITE}"
    elif not is_installed("litert"):
        missing["litert"] = "LiteRT is not installed: pip install 'bedside[litert]'"
    with tempfile.TemporaryDirectory(prefix="bedside-verify-") as name:
        path = Path(name) / "bundle.tar"
        path.write_bytes(tar)
        runtimes: tuple[RuntimeName, ...] = ("onnx",) if missing else ("litert", "onnx")
        job = msgspec.json.encode(Trial(str(path), tuple(key.hex() for key in signer_pks), runtimes))
        with _saying("the golden vectors could not be replayed"):
            differences = read_outcome(ask_child(golden.CHILD, job, limits), Compared).differences
        with _saying(f"a window on {' and '.join(runtimes)} could not be measured"):
            told: list[bytes] = []
            measured = read_outcome(ask_child(trial.CHILD, job, limits, told.append), tuple[Measured, ...])
            for one in told:
                differences = read_outcome(one, dict[str, float]) | differences
    return Replayed(differences, measured, missing)


@contextmanager
def _saying(what: str) -> Iterator[None]:
    """A child that came to no end is told of by what it was to do."""
    try:
        yield
    except UnavailableError as error:
        raise UnavailableError(error.code, f"{what}: {error.sentence}", remedy=error.remedy) from error
