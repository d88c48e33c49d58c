"""One window of the past, cut again from the buffer by the code that cut it.

A window without stream stages needs its own samples and gives the same bits. Filters, resampling and beats look back:
they are given a minute of signal before it (or five times a filter's settling, when that is longer), on the grid of its
hops, which leaves nothing of the beginning but rounding; a resampled window may lie up to one sample beside.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

from bedside.agent.buffer.part import NS_PER_S, offset_ns
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Prediction
from bedside.agent.windows.cutter import Window, WindowCutter
from bedside.agent.windows.stored import spec_digest
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.samples import Block

LOOK_BACK_S: Final = 60.0
_SETTLINGS: Final = 5
_PIECE_SAMPLES: Final = 4_096


def recut(reader: BufferReader, spec: WindowSpec, of: Prediction) -> Window | None:
    """The window of a prediction; None when neither its signal or record nor a stored window is there any more.

    Raises:
        StoreError: `store-read`.
    """
    found = _from_raw(reader, spec, of)
    if found is not None:
        return found
    for stored in reader.windows(of.session, spec_digest(spec)):  # labelled ones outlive their signal
        if stored.start_ns == of.start_ns and stored.stream == of.stream:
            return Window(stored.stream, stored.session, stored.start_ns, stored.end_ns, stored.values, 0.0)
    return None


def _from_raw(reader: BufferReader, spec: WindowSpec, of: Prediction) -> Window | None:
    cutter = WindowCutter(spec, of.stream)
    if spec.fields:
        for record in reader.records(of.stream, of.session, of.start_ns, of.end_ns):
            return next(iter(cutter.push_record(record, of.session, 0.0)), None)
        return None
    nearest: Window | None = None
    for stretch in reader.read_range(of.stream, of.session, of.start_ns - _look_back_ns(spec), of.end_ns):
        for at in range(0, len(stretch.values), _PIECE_SAMPLES):
            values = stretch.values[at : at + _PIECE_SAMPLES]
            start_ns = stretch.start_ns + offset_ns(at, stretch.rate_hz)
            block = Block(of.stream, start_ns, stretch.rate_hz, values, stretch.unit, stretch.metric, stretch.scale)
            for window in cutter.push(block, of.session, 0.0):
                if nearest is None or abs(window.start_ns - of.start_ns) < abs(nearest.start_ns - of.start_ns):
                    nearest = window
    if nearest is None or abs(nearest.start_ns - of.start_ns) > offset_ns(1, spec.rate_hz):
        return None
    return nearest


def _look_back_ns(spec: WindowSpec) -> int:
    """Of a whole number of hops, so that the same samples begin a window."""
    if spec.filter is None and spec.resample is None and spec.beat is None:
        return 0
    settle_s = spec.filter.settle_s if spec.filter is not None else 0.0
    hop = Fraction(spec.hop) / Fraction(spec.rate_hz).limit_denominator(1_000)
    hops = math.ceil(max(LOOK_BACK_S, _SETTLINGS * settle_s) / hop)
    return round(hops * hop * NS_PER_S)
