"""The labelled windows that are held out on this device, for a child that compares two models on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.config import BUFFER_NAME
from bedside.agent.serving.paired import MIN_BLOCKS
from bedside.agent.windows.holdout import HoldOut, Role, Split
from bedside.agent.windows.training import TrainingSet, collect
from bedside.ondevice.windows.targets import Question
from bedside.proto.v1 import identity_pb2
from bedside.service.identity import open_identity

if TYPE_CHECKING:
    from bedside.agent.inference.model import Model
    from bedside.core.bundle.manifest import Manifest
    from bedside.ondevice.runtimes import Float32

_BATCH: Final = 256


class Validation(NamedTuple):
    """Windows to judge with.

    Attributes:
        found: the windows.
        blocks: the independent stretch that each belongs to.
        of: in words what they are.
        too_few: why nothing can be judged with them; empty where it can.
    """

    found: TrainingSet
    blocks: Sequence[object]
    of: str
    too_few: str


def validation_windows(
    state_dir: Path, identity_dir: Path, manifest: Manifest, streams: Sequence[str], least: int, most: int
) -> Validation:
    """Windows of whole sessions; where these are too few, also those of blocks of time within the others.

    Args:
        state_dir: with the buffer.
        identity_dir: the buffer's keys, and the secret that says which windows are held out.
        manifest: of the model.
        streams: that it reads; empty for the one that the manifest names.
        least: windows without which nothing is judged.
        most: the newest so many are used.

    Raises:
        StoreError, ConfigError: of the buffer and its keys.
    """
    secret = open_identity(identity_dir, identity_pb2.Role.ROLE_DEVICE).device_secret
    hold_out = HoldOut(secret, manifest.window)

    def of(role: Role, count: int) -> TrainingSet:
        return collect(
            state_dir / BUFFER_NAME,
            load_key_ring(identity_dir),
            Question.of(manifest),
            max_windows=count,
            streams=streams,
            split=Split(hold_out, role),
        )

    whole = of("session", most)
    if len(whole.y) >= least and len(set(whole.sessions)) >= MIN_BLOCKS:
        return Validation(whole, whole.sessions, "of whole sessions", "")
    part = of("block", most - len(whole.y))
    both = TrainingSet(
        np.concatenate([whole.x, part.x]),
        np.concatenate([whole.y, part.y]),
        whole.sessions + part.sessions,
        np.concatenate([whole.start_ns, part.start_ns]),
    )
    places = zip(both.sessions, both.start_ns, strict=True)
    blocks = [(session, int(start_ns) // hold_out.block_ns) for session, start_ns in places]
    stretches, few = len(set(blocks)), ""
    if len(blocks) < least or stretches < MIN_BLOCKS:
        few = (
            f"{len(blocks)} validation windows in {stretches} {'stretch' if stretches == 1 else 'stretches'} of time; "
            f"{least} in {MIN_BLOCKS} are needed: label "
            + ("more, or lower gate_min_windows" if len(blocks) < least else "other times, too")
        )
    return Validation(both, blocks, "(with blocks of time of sessions that are trained on)", few)


def said_by(model: Model, x: Float32) -> Float32:
    """The logits (n, outputs) of windows."""
    return np.concatenate([model.logits(x[at : at + _BATCH]) for at in range(0, len(x), _BATCH)])
