"""Cuts windows from blocks, causally.

Invariants:
    * No window, and no state of a filter, crosses a gap, a session, a change of rate or form, or a value that is not
      a number; `Run` decides, as in the buffer.
    * The same samples give the same windows, bit for bit, whatever the blocks they arrive in: every stage computes each
      value by the same operations in the same order.

Source: docs/models.md, docs/adr/0012-preprocessing.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.preprocessing import signal_channels
from bedside.core.ids import SessionId
from bedside.core.limits import MAX_RATE_HZ
from bedside.core.samples import Block, Record
from bedside.ondevice.windows.cuts import Beats, Cut, Cuts, Sliding
from bedside.ondevice.windows.fit import arrived
from bedside.ondevice.windows.kept import Kept
from bedside.ondevice.windows.part import Run, offset_ns
from bedside.ondevice.windows.resampler import fits, ratio_of
from bedside.ondevice.windows.shaping import Float64, Shaper
from bedside.ondevice.windows.stages import StreamStages
from bedside.ondevice.windows.template import BeatTemplate

_PIECE_SAMPLES: Final = 1_024
"""A longer block is taken in pieces, which bounds the memory of its stages."""

MISFIT_S: Final = 10.0
"""Seconds without anything that fits after which what arrives instead is told of."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One model input.

    Attributes:
        start_ns: time of the first sample.
        end_ns: time after the last sample.
        values: shape (length, channels), float32, normalised.
        closed_monotonic_s: when the sample that closed it arrived.
        record: the record that it is; None of a signal's window.
    """

    stream: str
    session: SessionId
    start_ns: int
    end_ns: int
    values: npt.NDArray[np.float32]
    closed_monotonic_s: float
    record: Record | None = None


@dataclass(slots=True)
class _Segment:
    """Consecutive samples without a gap, and what is under way in them."""

    start_ns: int
    stages: StreamStages
    cuts: Cuts
    kept: Kept
    template: BeatTemplate | None


class WindowCutter:
    """Cuts one stream.

    Attributes:
        gaps: runs that ended before a stream did (gap, session or form changed, or values that are not numbers).
        unusable_blocks: blocks of another stream, rate or number of channels than the spec's, or of an endless scale,
            and records that the spec does not take.
        missing_fields: values that records lacked, and that became 0 after normalisation.
    """

    def __init__(self, spec: WindowSpec, stream: str | None = None) -> None:
        """Cut `spec`'s windows; `stream` is another one than it names, when the model is bound to that."""
        self.spec = spec
        self.stream = spec.stream if stream is None else stream
        self.gaps = 0
        self.unusable_blocks = 0
        self.missing_fields = 0
        self._unsettled = 0
        self._channels = signal_channels(spec)
        self._pick = list(spec.pick)
        self._shaper = Shaper(spec)
        self._run: Run | None = None
        self._segment: _Segment | None = None
        self._resampled_hz = math.nan
        self._unfit: tuple[float, str] | None = None
        self._fitted = False

    def misfit(self, now_s: float) -> str:
        """What has arrived for a while, at monotonic time `now_s`, and is not what the spec takes; else empty."""
        if self._unfit is None or now_s - self._unfit[0] < MISFIT_S:
            return ""
        return self._unfit[1]

    @property
    def unsettled_windows(self) -> int:
        """Windows left out because they began before the stream's filters had settled."""
        return self._unsettled + (self._segment.cuts.unsettled if self._segment is not None else 0)

    def push(self, block: Block, session: SessionId, arrived_s: float) -> list[Window]:
        """Take a block that arrived at monotonic time `arrived_s`; return the windows that it closed."""
        if not self._usable(block):
            self._refuse(arrived_s, arrived(block), other_kind=bool(self.spec.fields))
            return []
        self._unfit, self._fitted = None, True
        if self._run is None or not self._run.continues(block, session):
            self.gaps += self._run is not None
            self._run = Run.begin(block, session)
            self._end_segment()
        first, self._run.samples = self._run.samples, self._run.samples + len(block.values)
        windows: list[Window] = []
        for at, piece in self._pieces(block):
            if not len(piece):
                self.gaps += self._segment is not None
                self._end_segment()
                continue
            if self._segment is None:
                self._segment = self._begin_segment(self._run, first + at)
            windows += self._take(self._segment, piece, session, arrived_s)
        return windows

    def push_record(self, record: Record, session: SessionId, arrived_s: float) -> list[Window]:
        """Take a record that arrived at monotonic time `arrived_s`; return the window that it is.

        A record in which none of the model's fields has a value is no window: a decision would be made of nothing.
        """
        if record.stream != self.stream or not self.spec.fields:
            self._refuse(arrived_s, "records", other_kind=True)
            return []
        self._unfit, self._fitted = None, True
        values = np.array([[record.values.get(name, np.nan) for name in self.spec.fields]], np.float64)
        missing = ~np.isfinite(values)
        self.missing_fields += int(missing.sum())
        if missing.all():
            return []
        shaped = self._shaper.scale(np.where(missing, 0.0, values))
        shaped[missing] = 0.0
        return [Window(self.stream, session, record.time_ns, record.time_ns + 1, shaped, arrived_s, record)]

    def _refuse(self, arrived_s: float, what: str, *, other_kind: bool) -> None:
        """Count it; on a stream of both signal and records, what is of the other kind is no misfit."""
        self.unusable_blocks += 1
        if not (other_kind and self._fitted):
            self._unfit = (self._unfit[0] if self._unfit is not None else arrived_s, what)

    def _usable(self, block: Block) -> bool:
        channels = block.values.shape[1]
        fitting = channels > max(self._pick) if self._pick else channels == self._channels
        if block.stream != self.stream or not fitting or self.spec.fields or not math.isfinite(block.scale):
            return False
        return self._accepts_rate(block.rate_hz)

    def _accepts_rate(self, rate_hz: float) -> bool:
        if self.spec.resample is None:
            return abs(rate_hz - self.spec.rate_hz) <= 1e-3 * self.spec.rate_hz
        if rate_hz != self._resampled_hz:
            if not 0 < rate_hz <= MAX_RATE_HZ or not fits(
                ratio_of(rate_hz, self.spec.rate_hz), self.spec.resample.half_width
            ):
                return False
            self._resampled_hz = rate_hz
        return True

    def _pieces(self, block: Block) -> Iterator[tuple[int, Float64]]:
        """Yield (index, physical samples) in pieces of numbers; an empty piece where something is none."""
        values = block.values[:, self._pick] if self._pick else block.values
        physical = values.astype(np.float64) * block.scale
        bad = np.flatnonzero(~np.isfinite(physical).all(axis=1)) if values.dtype.kind == "f" else ()
        start = 0
        for end in (*bad, len(physical)):
            for at in range(start, end, _PIECE_SAMPLES):
                yield at, physical[at : min(at + _PIECE_SAMPLES, end)]
            if end < len(physical):
                yield int(end), physical[:0]
            start = int(end) + 1

    def _begin_segment(self, run: Run, at: int) -> _Segment:
        stages = StreamStages(self.spec, run.rate_hz)
        cuts: Cuts = Sliding(self.spec.length, self.spec.hop, stages.first, stages.usable)
        template: BeatTemplate | None = None
        if self.spec.beat is not None:
            cuts = Beats(self.spec.beat, stages.rate_hz, stages.first, stages.usable)
            template = BeatTemplate(self.spec.beat.template) if self.spec.beat.template else None
        start_ns = run.start_ns + offset_ns(at, run.rate_hz)
        return _Segment(start_ns, stages, cuts, Kept(self._channels, stages.first), template)

    def _end_segment(self) -> None:
        self._unsettled = self.unsettled_windows
        self._segment = None

    def _take(self, segment: _Segment, piece: Float64, session: SessionId, arrived_s: float) -> list[Window]:
        staged = segment.stages.push(piece)
        segment.kept.append(staged.after)
        windows = [
            Window(
                self.stream,
                session,
                segment.start_ns + offset_ns(cut.first, segment.stages.rate_hz),
                segment.start_ns + offset_ns(cut.first + self.spec.length, segment.stages.rate_hz),
                self._shaped(segment, cut),
                arrived_s,
            )
            for cut in segment.cuts.push(staged.before, segment.kept.end)
        ]
        segment.kept.forget(segment.cuts.needed)
        return windows

    def _shaped(self, segment: _Segment, cut: Cut) -> npt.NDArray[np.float32]:
        length = self.spec.length
        channels = [self._shaper.level(segment.kept.between(cut.first, cut.first + length))]
        if segment.template is not None:
            channels.append(segment.template.deviation(channels[0]))
        if cut.extra:
            channels.append(np.broadcast_to(np.array(cut.extra), (length, len(cut.extra))))
        return self._shaper.scale(*channels)
