"""A part: the samples of one stream within one second, gap-free, and the run logic that joins blocks to parts.

Invariant: `Run` is the one definition of "these samples follow those". Buffer and window cutter both use it, anchored
at the first sample of a run, so that a window cut from memory and one cut from stored parts end at the same gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Quality, Samples

NS_PER_S: Final = 1_000_000_000
NS_PER_MINUTE: Final = 60 * NS_PER_S


def offset_ns(samples: int, rate_hz: float) -> int:
    """Nanoseconds from a sample to the one `samples` later, on a grid of 1/1000 Hz."""
    return samples * 1000 * NS_PER_S // max(1, round(rate_hz * 1000))


def end_ns(block: Block) -> int:
    """The nominal time of the first sample after `block`."""
    return block.start_ns + offset_ns(len(block.values), block.rate_hz)


@dataclass(slots=True)
class Run:
    """Consecutive samples of one stream, session and form.

    Attributes:
        start_ns: time of the first sample.
        samples: so far.
    """

    start_ns: int
    samples: int
    rate_hz: float
    session: SessionId
    form: tuple[object, ...]

    @classmethod
    def begin(cls, block: Block, session: SessionId) -> Run:
        """A run that `block` will open; it holds no samples yet."""
        return cls(block.start_ns, 0, block.rate_hz, session, _form(block))

    def continues(self, block: Block, session: SessionId) -> bool:
        """Whether `block` follows within half a sample, in the same session and form."""
        if session != self.session or _form(block) != self.form:
            return False
        expected_ns = self.start_ns + offset_ns(self.samples, self.rate_hz)
        return abs(block.start_ns - expected_ns) * 2 <= offset_ns(1, self.rate_hz)


def _form(block: Block) -> tuple[object, ...]:
    return (
        block.rate_hz,
        block.values.shape[1],
        block.values.dtype.name,
        block.unit,
        block.metric,
        block.scale,
    )


@dataclass(frozen=True, slots=True)
class Part:
    """One row of signal.

    Attributes:
        second: of the first sample since the epoch; every sample lies in it.
        start_ns: time of the first sample.
        values: shape (samples, channels).
        quality: of all its blocks together.
    """

    stream: StreamId
    session: SessionId
    second: int
    start_ns: int
    rate_hz: float
    values: Samples
    unit: str
    metric: str
    scale: float
    quality: Quality

    def block(self) -> Block:
        """The part as a block of up to a second."""
        return Block(
            self.stream,
            self.start_ns,
            self.rate_hz,
            self.values,
            self.unit,
            self.metric,
            self.scale,
            self.quality,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part lies, and what can be told of it without opening it.

    Attributes:
        form: what changes only where a run ends: rate, channels and type.
    """

    start_ns: int
    samples: int
    rate_hz: float
    form: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Gap-free samples.

    Attributes:
        start_ns: time of the first sample.
        values: shape (samples, channels), as stored.
        scale: physical value = value times `scale`.
    """

    start_ns: int
    rate_hz: float
    values: Samples
    unit: str
    metric: str
    scale: float
