"""An update in the order in which it is encoded, a piece at a time, so that nobody needs all of it in memory.

A piece is float32, at most `GROUP_WORDS` long. A rotated segment comes in whole blocks, gathered as `rotation` says,
its padding included; one that is not rotated comes in its own order. Whoever reads a piece may overwrite it, and it
is gone with the next one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from bedside.core.codec.layout import Layout, Segment, SegmentKind
from bedside.core.codec.rotation import GROUP_WORDS, FloatArray, block_shape, blocks_per_group
from bedside.core.errors import ProtocolError

CountArray = npt.NDArray[np.int64]

_LARGEST_NORM: Final = 1e18
"""An update beyond this has diverged, and its clip factor would leave the normal range of float32."""


class UpdateSource(Protocol):
    """Where an update comes from. Segments are named by their place in the layout."""

    @property
    def digest(self) -> bytes:
        """32 bytes that differ when anything of the update differs."""

    def norm(self, index: int) -> float:
        """L2 norm of a VALUE segment."""

    def pieces(self, index: int) -> Iterator[FloatArray]:
        """A VALUE segment, in pieces of the sizes that `piece_sizes` names."""

    def counts(self, index: int) -> CountArray:
        """A COUNT segment, shape (words,), each 0..cap."""


def piece_sizes(segment: Segment) -> Iterator[int]:
    """Words of each piece of a VALUE segment."""
    whole = GROUP_WORDS
    if segment.rotation_block:
        whole = blocks_per_group(segment.rotation_block) * segment.rotation_block
    for start in range(0, segment.full_words, whole):
        yield min(whole, segment.full_words - start)


class TensorUpdate:
    """An update that lies in memory as named arrays.

    Args:
        tensors: float32 arrays by name, in the shapes of the layout.
        counts: whole numbers 0..cap by name; arrays where the slot has a shape.
        layout: the plan's layout.
        weight: factor on every tensor, as `core.learning.weighting` gives it.

    Raises:
        ProtocolError: `tensor-mismatch`, `delta-not-finite` or `count-out-of-range`.
    """

    def __init__(
        self,
        tensors: Mapping[str, FloatArray],
        counts: Mapping[str, int | CountArray],
        layout: Layout,
        weight: float = 1.0,
    ) -> None:
        _check_names({*tensors, *counts}, layout)
        self._layout = layout
        self._weight = np.float32(weight)
        self._values: dict[int, list[FloatArray]] = {}
        self._counts: dict[int, CountArray] = {}
        self._norms: dict[int, float] = {}
        for index, segment in enumerate(layout.segments):
            if segment.kind is SegmentKind.COUNT:
                self._counts[index] = _flat_counts(segment, counts)
            else:
                self._values[index] = _flat_values(segment, tensors)
                self._norms[index] = _norm(segment, self._values[index]) * abs(float(self._weight))

    @property
    def digest(self) -> bytes:
        """BLAKE3 over weight, tensors and counts in the layout's order."""
        hasher = blake3(self._weight.tobytes())
        for index in range(len(self._layout.segments)):
            for part in self._values.get(index, ()):
                hasher.update(np.ascontiguousarray(part).view(np.uint8).data)
            if index in self._counts:
                hasher.update(self._counts[index].tobytes())
        return hasher.digest()

    def norm(self, index: int) -> float:
        """L2 norm of a VALUE segment, weight included."""
        return self._norms[index]

    def counts(self, index: int) -> CountArray:
        """A COUNT segment."""
        return self._counts[index]

    def pieces(self, index: int) -> Iterator[FloatArray]:
        """A VALUE segment; one buffer serves all its pieces."""
        segment = self._layout.segments[index]
        reader = _Row(self._values[index])
        gather = self._gather_rotated if segment.rotation_block else self._gather_plain
        for piece in gather(segment, reader):
            if self._weight != 1.0:
                piece *= self._weight
            yield piece

    @staticmethod
    def _gather_rotated(segment: Segment, row: _Row) -> Iterator[FloatArray]:
        """Run r of block k lies at (r B + k) c: a group of blocks takes one stretch of every run."""
        block = segment.rotation_block
        rows, columns = block_shape(block)
        count = segment.full_words // block
        work = np.empty((min(blocks_per_group(block), count), rows, columns), np.float32)
        whole = row.runs(rows, count * columns).reshape(-1, count, columns)
        first = 0
        for size in piece_sizes(segment):
            blocks = work[: size // block]
            blocks[:, : len(whole), :] = whole[:, first : first + len(blocks), :].transpose(1, 0, 2)
            for run in range(len(whole), rows):
                part = row.read((run * count + first) * columns, len(blocks) * columns)
                blocks[:, run, :] = part.reshape(-1, columns)
            first += len(blocks)
            yield blocks.reshape(-1)

    @staticmethod
    def _gather_plain(segment: Segment, row: _Row) -> Iterator[FloatArray]:
        work = np.empty(min(GROUP_WORDS, segment.full_words), np.float32)
        at = 0
        for size in piece_sizes(segment):
            work[:size] = row.read(at, size)
            at += size
            yield work[:size]


class _Row:
    """Several arrays read as one, with zeros behind the last."""

    def __init__(self, parts: list[FloatArray]) -> None:
        self._parts = parts
        self._ends = np.cumsum([part.size for part in parts])

    def runs(self, count: int, length: int) -> FloatArray:
        """As many of `count` runs of `length` words as lie in the first array whole, shape (found, length); a view."""
        first = self._parts[0]
        found = min(count, first.size // length)
        return first[: found * length].reshape(found, length)

    def read(self, start: int, count: int) -> FloatArray:
        """`count` words from `start` on; a view where they lie in one array."""
        place = int(np.searchsorted(self._ends, start, side="right"))
        if place < len(self._parts) and start + count <= self._ends[place]:
            offset = start - (int(self._ends[place]) - self._parts[place].size)
            return self._parts[place][offset : offset + count]
        out = np.zeros(count, np.float32)
        done = 0
        while done < count and place < len(self._parts):
            part = self._parts[place]
            offset = start + done - (int(self._ends[place]) - part.size)
            taken = min(count - done, part.size - offset)
            out[done : done + taken] = part[offset : offset + taken]
            done += taken
            place += 1
        return out


def _check_names(given: set[str], layout: Layout) -> None:
    wanted = {slot.name for segment in layout.segments for slot in segment.slots}
    if given != wanted:
        raise ProtocolError(
            "tensor-mismatch",
            f"the layout and the update differ in {len(given ^ wanted)} names, first {min(given ^ wanted)!r}",
        )


def _flat_values(segment: Segment, tensors: Mapping[str, FloatArray]) -> list[FloatArray]:
    """The segment's tensors, each in a row of its own; views, nothing is copied."""
    parts = []
    for slot in segment.slots:
        tensor = tensors.get(slot.name)
        if tensor is None or tensor.shape != slot.shape or tensor.dtype != np.float32:
            shape = "x".join(map(str, slot.shape)) or "scalar"
            raise ProtocolError("tensor-mismatch", f"tensor {slot.name!r} is not a float32 of shape {shape}")
        parts.append(tensor.reshape(-1))
    return parts


def _flat_counts(segment: Segment, counts: Mapping[str, int | CountArray]) -> CountArray:
    parts = []
    for slot in segment.slots:
        count = np.asarray(counts.get(slot.name))
        if count.dtype.kind not in "iu" or count.shape != slot.shape:
            raise ProtocolError("tensor-mismatch", f"count {slot.name!r} is not of whole numbers in its shape")
        if count.min() < 0 or count.max() > segment.cap:
            raise ProtocolError("count-out-of-range", f"count {slot.name!r} is not within 0 and {segment.cap}")
        parts.append(count.reshape(-1).astype(np.int64))
    return np.concatenate(parts)


def _norm(segment: Segment, parts: list[FloatArray]) -> float:
    square = 0.0
    for part in parts:
        for start in range(0, part.size, GROUP_WORDS):
            wide = part[start : start + GROUP_WORDS].astype(np.float64)
            square += float(np.dot(wide, wide))
    norm = math.sqrt(square) if math.isfinite(square) else math.inf
    if norm > _LARGEST_NORM:
        raise ProtocolError(
            "delta-not-finite",
            f"segment {segment.name!r} has diverged: it is not a vector of finite norm",
            remedy="lower the learning rate; the delta of this round is dropped",
        )
    return norm
