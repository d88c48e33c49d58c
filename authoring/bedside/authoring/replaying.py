"""Replaying a bundle's golden vectors as a device does: in limited children, before anything of it is believed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bedside.ondevice.confinement import read_outcome, run_child
from bedside.ondevice.golden import DEFAULT_LIMITS, Replay, replay_golden
from bedside.ondevice.trial import CHILD, Measured


def replay_in_children(tar: bytes, signer_pks: Sequence[bytes]) -> tuple[dict[str, float], tuple[Measured, ...]]:
    """Replay on onnxruntime, then on LiteRT.

    Returns:
        The largest absolute difference per golden tensor, and how long a window takes on each runtime.

    Raises:
        TrustError: `golden-mismatch`, and from the bundle.
        MalformedError: `bad-graph`, `bad-golden`, and from the bundle.
        UnavailableError: `child-died`, `child-timeout`.
    """
    with tempfile.TemporaryDirectory(prefix="bedside-verify-") as name:
        path = Path(name) / "bundle.tar"
        path.write_bytes(tar)
        return asyncio.run(_replay(Replay(str(path), tuple(key.hex() for key in signer_pks))))


async def _replay(replay: Replay) -> tuple[dict[str, float], tuple[Measured, ...]]:
    compared = await replay_golden(replay, DEFAULT_LIMITS)
    measured = read_outcome(await run_child(CHILD, msgspec.json.encode(replay), DEFAULT_LIMITS), tuple[Measured, ...])
    return compared.differences, measured
