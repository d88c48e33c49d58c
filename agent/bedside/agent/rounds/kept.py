"""The delta of a contribution, sealed, for as long as its own trustee may still give it back.

A round that was burned, or answered without this device, frees the delta, and the next plan can take it without
training again. The file is also what every contribution is encoded from, a piece at a time: ten million parameters
pass through memory of one piece.

    file  = frame*            one frame of facts, then the pieces of every VALUE segment in their order

Invariants:
    * Sealed as `bedside.agent.frames` has it.
    * A delta serves plans of its own model, layout and training only, and none later than the next round.

Source: DESIGN section 5, steps 3 and 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import numpy as np

from bedside.agent.frames import FrameReader, FrameWriter, frame_bytes
from bedside.core.clock import Entropy
from bedside.core.codec import CountArray, FloatArray, Layout, SegmentKind, UpdateSource, piece_sizes
from bedside.core.errors import MalformedError, StoreError
from bedside.core.securesum.plans import CheckedPlan, layout_message
from bedside.core.signing import digest
from bedside.core.unreadable import UNREADABLE
from bedside.service.files import durable_file

MAX_AGE_ROUNDS: Final = 1
"""How many rounds later a freed delta may still be sent: an older one points away from where the model went."""

_PURPOSE: Final = b"bedside-kept-v1"
_MAX_FACTS_BYTES: Final = 64 << 20
_FLOAT_BYTES: Final = 4


class _Facts(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    fit: bytes
    round_number: int
    examples: int
    update_digest: bytes
    norms: dict[int, float]
    counts: dict[int, list[int]]


def write_kept(
    path: Path, key: bytes, entropy: Entropy, plan: CheckedPlan, update: UpdateSource, *, examples: int
) -> None:
    """Seal `update`, which was made for `plan`, durably into `path`.

    Raises:
        StoreError: `file-write`.
    """
    layout = plan.layout
    values = [index for index, segment in enumerate(layout.segments) if segment.kind is SegmentKind.VALUE]
    counts = [index for index in range(len(layout.segments)) if index not in values]
    facts = _Facts(
        fit_of(plan),
        plan.plan.round_number,
        examples,
        update.digest,
        {index: update.norm(index) for index in values},
        {index: update.counts(index).tolist() for index in counts},
    )
    with durable_file(path) as file:
        frames = FrameWriter(file, key, _PURPOSE, entropy)
        frames.write(msgspec.msgpack.encode(facts))
        for index in values:
            for piece in update.pieces(index):
                frames.write(piece.astype("<f4", copy=False).tobytes())


def fit_of(plan: CheckedPlan) -> bytes:
    """What two plans must share for the delta of one to be a delta of the other: task, model, layout, training."""
    named = plan.plan
    parts = (
        named.task.encode(),
        named.bundle.digest,
        layout_message(plan.layout).SerializeToString(deterministic=True),
        named.training.SerializeToString(deterministic=True),
    )
    return digest(b"".join(digest(part) for part in parts))


class KeptUpdate:
    """An update in a sealed file.

    Attributes:
        examples: windows that it was trained on.

    Raises:
        StoreError: `kept-missing`, or `kept-damaged` for a file that does not open, is cut short or out of order.
    """

    def __init__(self, path: Path, key: bytes, layout: Layout) -> None:
        self._path = path
        self._frames = FrameReader(key, _PURPOSE)
        self._layout = layout
        try:
            with path.open("rb") as file:
                facts = self._read(file, 0, _MAX_FACTS_BYTES)
                self._start = file.tell()
        except OSError as error:
            raise StoreError("kept-missing", f"the kept delta {path.name} cannot be read: {error.strerror}") from error
        try:
            self._facts = msgspec.msgpack.decode(facts, type=_Facts)
        except UNREADABLE as error:
            raise _damaged(path) from error
        self.examples = self._facts.examples

    def serves(self, plan: CheckedPlan) -> bool:
        """Whether this delta may be encoded for `plan`."""
        age = plan.plan.round_number - self._facts.round_number
        return self._facts.fit == fit_of(plan) and 0 <= age <= MAX_AGE_ROUNDS

    @property
    def digest(self) -> bytes:
        """Of the update that was sealed."""
        return self._facts.update_digest

    def norm(self, index: int) -> float:
        """L2 norm of a VALUE segment."""
        return self._facts.norms[index]

    def counts(self, index: int) -> CountArray:
        """A COUNT segment."""
        return np.asarray(self._facts.counts[index], np.int64)

    def pieces(self, index: int) -> Iterator[FloatArray]:
        """A VALUE segment, read and opened piece by piece."""
        place, offset = 1, self._start
        for before in self._layout.segments[:index]:
            if before.kind is SegmentKind.VALUE:
                for size in piece_sizes(before):
                    place, offset = place + 1, offset + frame_bytes(size * _FLOAT_BYTES)
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                for size in piece_sizes(self._layout.segments[index]):
                    data = self._read(file, place, frame_bytes(size * _FLOAT_BYTES))
                    if len(data) != size * _FLOAT_BYTES:
                        raise _damaged(self._path)
                    yield np.frombuffer(bytearray(data), "<f4").astype(np.float32, copy=False)
                    place += 1
        except OSError as error:
            raise StoreError("kept-missing", f"the kept delta {self._path.name} cannot be read") from error

    def _read(self, file: BinaryIO, place: int, max_bytes: int) -> bytes:
        try:
            return self._frames.read(file, place, max_bytes)
        except MalformedError as error:
            raise _damaged(self._path) from error


def _damaged(path: Path) -> StoreError:
    return StoreError("kept-damaged", f"the kept delta {path.name} is damaged", remedy="the device trains again")
