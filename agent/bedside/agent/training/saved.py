"""A training that is not over, on the disk: where it stopped, sealed, for one task and one set of inputs.

    <state_dir>/training/<task>.state = a frame of facts, then the step's tensors, in pieces (`bedside.agent.frames`)

Invariants:
    * The file is replaced as a whole and durably: after any crash there is the one before or the one after.
    * It goes on with its own inputs only: another plan, model, set of windows or schedule has another fit.
    * It holds what was learnt from sessions: an erasure removes it, whichever session it was (`discard_trainings`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec
import numpy as np

from bedside.agent.frames import FrameReader, FrameWriter, frame_bytes
from bedside.agent.windows.training import Horizon
from bedside.core.bundle.tensors import Array
from bedside.core.clock import Entropy
from bedside.core.errors import MalformedError
from bedside.core.unreadable import UNREADABLE
from bedside.ondevice.training.position import Position, Saved
from bedside.service.files import durable_file, sync_directory

DIRECTORY_NAME: Final = "training"
_SUFFIX: Final = ".state"
_PURPOSE: Final = b"bedside-train-v1"
_MAX_FACTS_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 20
_MAX_TENSORS: Final = 4_096


class TensorFacts(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One tensor of the step's state."""

    name: str
    dtype: Literal["float32", "float64", "int8", "uint8", "int32", "int64"]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size."""
        size = np.dtype(self.dtype).itemsize
        for axis in self.shape:
            size *= axis
        return size


class TrainingFacts(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What is known of a saved training before its tensors are read.

    Attributes:
        fit: digest of everything that it depends on.
        last_label: number of the newest label that its windows may have.
        until_ns: end of the newest of them, ns since 1970.
        spent_s: time that it has taken so far, pauses not counted.
        position: where it stopped.
        tensors: that follow, in order.
    """

    fit: bytes
    last_label: int
    until_ns: int
    spent_s: float
    position: Position
    tensors: tuple[TensorFacts, ...]


@dataclass(frozen=True, slots=True)
class SavedTraining:
    """One task's file.

    Attributes:
        path: of the file; its directory is there.
        key: the newest of the buffer's ring. After a rotation a saved training begins again.
    """

    path: Path
    key: bytes

    def write(self, saved: Saved, entropy: Entropy, *, fit: bytes, horizon: Horizon, spent_s: float) -> None:
        """Replace the file durably.

        Raises:
            StoreError: `file-write`.
        """
        tensors = tuple(TensorFacts(name, array.dtype.name, array.shape) for name, array in saved.state.items())  # type: ignore[arg-type]  # the dtypes of `Array`
        facts = TrainingFacts(fit, horizon.last_label, horizon.until_ns, spent_s, saved.position, tensors)
        with durable_file(self.path) as file:
            frames = FrameWriter(file, self.key, _PURPOSE, entropy)
            frames.write(msgspec.msgpack.encode(facts))
            for array in saved.state.values():
                data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
                for first in range(0, len(data), _PIECE_BYTES):
                    frames.write(bytes(data[first : first + _PIECE_BYTES]))

    def facts(self) -> TrainingFacts | None:
        """What the file says of itself; None where there is none, or none that can be used, which is removed."""
        try:
            with self.path.open("rb") as file:
                return read_facts(file, FrameReader(self.key, _PURPOSE))
        except FileNotFoundError:
            return None
        except (OSError, MalformedError):
            self.discard()
            return None

    def read(self) -> Saved | None:
        """The whole of it; None as for `facts`."""
        try:
            with self.path.open("rb") as file:
                return read_saved(file, FrameReader(self.key, _PURPOSE))
        except FileNotFoundError:
            return None
        except (OSError, MalformedError):
            self.discard()
            return None

    def discard(self) -> None:
        """Remove the file, if it is there."""
        discard_training(self.path)


def state_path(state_dir: Path, task: str) -> Path:
    """Where a task's unfinished training lies; makes the directory, mode 0700.

    Args:
        state_dir: of the device.
        task: a file name's stem: `round-` and a plan's digest, or another that no round has.
    """
    directory = state_dir / DIRECTORY_NAME
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory / f"{task}{_SUFFIX}"


def discard_training(path: Path) -> None:
    """Remove one unfinished training, and what a write that was cut off left of it."""
    for name in (path.name, f".{path.name}.new"):
        path.with_name(name).unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_directory(path.parent)


def discard_trainings(state_dir: Path, prefix: str = "", keep: frozenset[str] = frozenset()) -> list[str]:
    """Remove every unfinished training whose task begins with `prefix` and is not to be kept; returns their tasks."""
    directory = state_dir / DIRECTORY_NAME
    if not directory.is_dir():
        return []
    stems = {path.name.removeprefix(".").split(_SUFFIX)[0] for path in directory.iterdir()}
    gone = sorted(stem for stem in stems if stem.startswith(prefix) and stem not in keep)
    for stem in gone:
        discard_training(directory / f"{stem}{_SUFFIX}")
    return gone


def read_facts(file: BinaryIO, frames: FrameReader) -> TrainingFacts:
    """Read the first frame.

    Raises:
        MalformedError: `bad-frame`, `bad-training-state`.
    """
    try:
        facts = msgspec.msgpack.decode(frames.read(file, 0, _MAX_FACTS_BYTES), type=TrainingFacts)
    except UNREADABLE as error:
        raise _bad("its facts cannot be read") from error
    whole = os.fstat(file.fileno()).st_size
    if len(facts.tensors) > _MAX_TENSORS or any(min(one.shape, default=0) < 0 for one in facts.tensors):
        raise _bad("it has too many tensors, or one of a negative size")
    if sum(one.bytes for one in facts.tensors) > whole:
        raise _bad("it is shorter than its tensors")
    return facts


def read_saved(file: BinaryIO, frames: FrameReader) -> Saved:
    """Read everything.

    Raises:
        MalformedError: `bad-frame`, `bad-training-state`.
    """
    facts = read_facts(file, frames)
    place, state = 1, dict[str, Array]()
    for tensor in facts.tensors:
        array = np.empty(tensor.bytes, np.uint8)
        for first, size in _pieces(tensor.bytes):
            piece = frames.read(file, place, frame_bytes(size))
            if len(piece) != size:
                raise _bad("a piece has another size than its tensor says")
            array[first : first + size] = np.frombuffer(piece, np.uint8)
            place += 1
        try:
            state[tensor.name] = array.view(tensor.dtype).reshape(tensor.shape)
        except ValueError as error:  # axes beside an empty one may be larger than any array
            raise _bad("a tensor has axes that no array has") from error
    return Saved(facts.position, state)


def _pieces(total: int) -> Iterator[tuple[int, int]]:
    for first in range(0, total, _PIECE_BYTES):
        yield first, min(_PIECE_BYTES, total - first)


def _bad(sentence: str) -> MalformedError:
    return MalformedError("bad-training-state", f"an unfinished training cannot go on: {sentence}")
