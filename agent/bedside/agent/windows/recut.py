"""One window of the past, cut again from the buffer by the code that cut it.

It is the very window: the stages begin far enough before it that nothing is left of how they began, on the grid on
which it was cut (see `phase`), and signal is read on until the last stage has given it out. However long its run was,
only that stretch is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import takewhile
from typing import Final

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Prediction, Session
from bedside.agent.windows.phase import ROUNDING_NS, nominal_ns, phase_of
from bedside.agent.windows.stored import (
    behind_ns,
    cut,
    cut_records,
    restart_samples,
    starts_before,
    stored_windows_of,
)
from bedside.core.bundle.manifest import WindowSpec
from bedside.ondevice.windows.cutter import Window
from bedside.ondevice.windows.part import NS_PER_S, Part, offset_ns
from bedside.ondevice.windows.resampler import half_taps, ratio_of

LOOK_BACK_S: Final = 60.0
"""Signal before a window that stages with a memory are given."""
FAR_BACK_S: Final = 600.0
"""Where a minute was not enough: the detector of beats may remember one long pause for many beats."""
_SETTLINGS: Final = 6
"""Times of settling, 60 dB each by default, after which what a filter began with is below rounding."""
_SLOW_BEAT_S: Final = 1.5
"""Between the beats of a slow heart, 40 a minute: so much is read for each beat of a template."""
_SLACK_S: Final = 1.5
"""A part is up to a second long, and begins up to half a sample beside its nominal time."""


@dataclass(frozen=True, slots=True)
class Recut:
    """What was found.

    Attributes:
        window: None when the signal is there, but not what its stages need before it.
        exact: whether it lies where the decided one lay, and its stages had all that they need.
    """

    window: Window | None
    exact: bool


def remembers(spec: WindowSpec) -> bool:
    """Whether a window depends on more than the samples that it covers and those beside them."""
    return spec.filter is not None or spec.beat is not None


def recut(
    reader: BufferReader,
    spec: WindowSpec,
    of: Prediction,
    look_back_s: float = LOOK_BACK_S,
    labels: Sequence[str] = (),
) -> Recut | None:
    """The window of a prediction; None when neither its signal or record nor a stored window is there any more.

    Args:
        reader: of the buffer.
        spec: of the model that decided.
        of: the prediction.
        look_back_s: signal before it for stages with a memory; more when their filter settles slowly.
        labels: names of the model's outputs.

    Raises:
        StoreError: `store-read`.
    """
    found = _from_record(reader, spec, of) if spec.fields else _from_signal(reader, spec, of, look_back_s)
    if found is not None and found.exact:
        return found
    for window in stored_windows_of(reader, _session(reader, of), spec, labels):  # labelled ones outlive their signal
        if abs(window.start_ns - of.start_ns) <= ROUNDING_NS and window.stream == of.stream:
            return Recut(window, exact=True)
    return found


def _from_record(reader: BufferReader, spec: WindowSpec, of: Prediction) -> Recut | None:
    records = reader.records(of.stream, of.session, of.start_ns, of.end_ns)
    window = next(cut_records(records, _session(reader, of), spec), None)
    return Recut(window, exact=True) if window is not None else None


def _from_signal(reader: BufferReader, spec: WindowSpec, of: Prediction, look_back_s: float) -> Recut | None:
    if not _is_there(reader, of):
        return None
    covering = next(reader.parts(of.stream, of.session, of.start_ns, of.end_ns))
    from_ns = max(0, of.start_ns - _back_ns(spec, covering.rate_hz, look_back_s))
    first = next(reader.parts(of.stream, of.session, from_ns, of.end_ns))
    session = _session(reader, of)
    exact = not (remembers(spec) and starts_before(of.start_ns, session.expired_ns, spec))
    for start_ns, sure in _starts(reader, session, spec, of, first):
        read = replace(session, raw_ns=first.start_ns, anchor_ns=start_ns)
        at = phase_of(spec, of.start_ns, start_ns, first.rate_hz).first_sample
        nearest = _nearest(cut(_onwards(reader, spec, of, from_ns), read, spec, at), of.start_ns)
        if nearest is None:
            continue
        beside_ns = abs(nearest.start_ns - of.start_ns)
        if beside_ns <= ROUNDING_NS or (not sure and beside_ns <= offset_ns(1, spec.rate_hz)):
            return Recut(nearest, exact and sure)
    return Recut(None, exact=False)


def _starts(
    reader: BufferReader, session: Session, spec: WindowSpec, of: Prediction, first: Part
) -> Iterator[tuple[int, bool]]:
    """Yield what may be the nominal time of the first sample that is read, and whether it is beyond doubt."""
    yield first.start_ns, True  # as stamps of most sources have it, and where the window's own run begins later
    stamped = phase_of(spec, of.start_ns, first.start_ns, first.rate_hz)
    if stamped.fits:
        return
    yield nominal_ns(reader, session, first), True
    # The beginning of the run is gone. Stamps waver by half a sample: that leaves one grid, or several if resampled.
    resampled = spec.resample is not None and ratio_of(first.rate_hz, spec.rate_hz) != 1
    yield first.start_ns + round(stamped.off_ns), not resampled


def _nearest(windows: Iterator[Window], start_ns: int) -> Window | None:
    nearest: Window | None = None
    for window in windows:
        if nearest is None or abs(window.start_ns - start_ns) < abs(nearest.start_ns - start_ns):
            nearest = window
        if abs(window.start_ns - start_ns) <= ROUNDING_NS:
            break
    return nearest


def _onwards(reader: BufferReader, spec: WindowSpec, of: Prediction, from_ns: int) -> Iterator[Part]:
    """The parts up to where the last stage must have given the window out."""
    end_ns = of.end_ns + behind_ns(spec)
    parts = reader.parts(of.stream, of.session, from_ns)
    return takewhile(lambda part: part.start_ns < end_ns + round(_reach_s(spec, part.rate_hz) * NS_PER_S), parts)


def _back_ns(spec: WindowSpec, rate_hz: float, look_back_s: float) -> int:
    back_s = _SLACK_S + _reach_s(spec, rate_hz)
    if spec.beat is None:  # windows of beats lie on any sample of the grid
        back_s += float(Fraction(restart_samples(spec, rate_hz)) / Fraction(rate_hz))
    else:
        back_s += ratio_of(rate_hz, spec.rate_hz).denominator / rate_hz
    if remembers(spec):
        settle_s = spec.filter.settle_s if spec.filter is not None else 0.0
        template_s = _SLOW_BEAT_S * spec.beat.template if spec.beat is not None else 0.0
        back_s += max(look_back_s, _SETTLINGS * settle_s, template_s)
    return round(back_s * NS_PER_S)


def _reach_s(spec: WindowSpec, rate_hz: float) -> float:
    """How far resampling looks to each side."""
    if spec.resample is None:
        return 0.0
    return half_taps(ratio_of(rate_hz, spec.rate_hz), spec.resample.half_width) / rate_hz


def _is_there(reader: BufferReader, of: Prediction) -> bool:
    """Whether all samples of the window are still there."""
    after_ns: int | None = None
    sample_ns = 0
    for part in reader.parts(of.stream, of.session, of.start_ns, of.end_ns):
        sample_ns = offset_ns(1, part.rate_hz)
        if part.start_ns > (of.start_ns if after_ns is None else after_ns) + sample_ns:
            return False
        after_ns = part.start_ns + offset_ns(len(part.values), part.rate_hz)
    return after_ns is not None and after_ns + sample_ns >= of.end_ns


def _session(reader: BufferReader, of: Prediction) -> Session:
    """Its row, which damage may have cost."""
    return reader.session(of.session) or Session(of.session, of.stream, 0, None, consent_training=False, origin="")
