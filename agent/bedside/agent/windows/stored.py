"""Windows of a session of which a part has expired: what was stored of it, and what is cut from what is left.

Where retention shortened a gap-free stretch of signal, some of it stays from before that time (`lead_ns`), so that
filters settle and beats are found again, and windows are counted from the stretch's real start: they lie where they
lay for inference.

Invariant: a window that starts before a session's `expired_ns` comes from the store, every other one from signal. Half
a sample's tolerance makes that the same for a window of which two readings differ in rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from typing import Final

import msgspec
import numpy as np

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Session, StoredWindow
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.samples import Block, Record
from bedside.core.signing import digest
from bedside.ondevice.windows.cutter import Window, WindowCutter
from bedside.ondevice.windows.part import NS_PER_S, Part, Run, offset_ns
from bedside.ondevice.windows.resampler import ratio_of
from bedside.ondevice.windows.rpeaks import LEARNING_S, MAX_SEARCH_S
from bedside.ondevice.windows.targets import Question, answering_fields, asked_fields

LEAD_S: Final = 30.0
"""Signal before the first window that counts, beside what the filter needs: the detector of beats learns from it."""

BEHIND_S: Final = 2.0
"""A part is up to a second long, and begins up to half a sample beside its nominal time; resampling looks ahead."""


def spec_digest(spec: WindowSpec, labels: Sequence[str] = ()) -> bytes:
    """What stored windows call their specification, whatever stream it is bound to.

    Those of records have another one for other `labels`, a model's outputs: what the record says of these is kept.
    """
    data = msgspec.json.encode(msgspec.structs.replace(spec, stream=""))
    asked = asked_fields(spec, labels)
    return digest(data + msgspec.json.encode(asked) if asked else data)


def lead_ns(spec: WindowSpec, rate_hz: float) -> int:
    """How much signal must stay before the time up to which a session has expired."""
    settle_s = LEAD_S + (spec.filter.settle_s if spec.filter is not None else 0.0)
    return math.ceil(settle_s * NS_PER_S) + offset_ns(restart_samples(spec, rate_hz), rate_hz)


def behind_ns(spec: WindowSpec) -> int:
    """Signal behind a window within which the last stage has given it out: a beat may be found by looking back."""
    return round((BEHIND_S + (MAX_SEARCH_S + LEARNING_S if spec.beat is not None else 0.0)) * NS_PER_S)


def starts_before(start_ns: int, border_ns: int, spec: WindowSpec) -> bool:
    """Whether a window belongs before the border."""
    return start_ns + offset_ns(1, spec.rate_hz) // 2 < border_ns if not spec.fields else start_ns < border_ns


def windows_of(reader: BufferReader, session: Session, spec: WindowSpec) -> Iterator[Window]:
    """Yield the windows of what is left of a session's signal or records, cut as inference cuts them."""
    if spec.fields:
        found = cut_records(reader.records(session.stream, session.session), session, spec)
    else:
        found = cut(reader.parts(session.stream, session.session), session, spec)
    for window in found:
        if not starts_before(window.start_ns, session.expired_ns, spec):
            yield window


def stored_windows_of(
    reader: BufferReader, session: Session, spec: WindowSpec, labels: Sequence[str] = ()
) -> Iterator[Window]:
    """Yield the windows that outlived their signal, as the cutter made them; of records, with what answers `labels`."""
    asked = asked_fields(spec, labels)
    names = dict.fromkeys((spec_digest(spec), spec_digest(spec, labels)))  # the first is that of older versions
    for stored in chain.from_iterable(reader.windows(session.session, name) for name in names):
        if stored.values.shape not in {(spec.length, spec.channels), (spec.length, spec.channels + len(asked))}:
            continue
        values, answers = stored.values[:, : spec.channels], stored.values[0, spec.channels :].tolist()
        record = Record(stored.stream, stored.start_ns, dict(zip(asked, answers, strict=True))) if answers else None
        yield Window(stored.stream, stored.session, stored.start_ns, stored.end_ns, values, 0.0, record)


def to_store(window: Window, question: Question, label: str, session: Session) -> StoredWindow:
    """A window that is to outlive its signal."""
    spec, values = question.window, window.values
    if asked := asked_fields(spec, question.labels):
        fields = answering_fields(window, question)
        values = np.append(values, np.array([[fields.get(name, np.nan) for name in asked]], np.float32), axis=1)
    name = spec_digest(spec, question.labels)
    return StoredWindow(session.stream, session.session, window.start_ns, window.end_ns, name, label, values)


def cut(parts: Iterable[Part], session: Session, spec: WindowSpec, first_sample: int | None = None) -> Iterator[Window]:
    """Yield every window of stored parts, those before the session's expiry too.

    Args:
        parts: in the order of time.
        session: theirs.
        spec: how to cut.
        first_sample: of the part that begins at the session's `raw_ns`, where a window's grid begins again; None to
            count it from `anchor_ns`.
    """
    cutter = WindowCutter(spec, session.stream)
    for block in _aligned(parts, session, spec, first_sample):
        yield from cutter.push(block, session.session, 0.0)


def cut_records(records: Iterable[Record], session: Session, spec: WindowSpec) -> Iterator[Window]:
    """Yield the window of every stored record."""
    cutter = WindowCutter(spec, session.stream)
    for record in records:
        yield from cutter.push_record(record, session.session, 0.0)


class Stretches:
    """Follows parts in the order of time: where the gap-free stretch began that a part belongs to.

    A value that is not a number ends a stretch, as it does for the cutter.

    Attributes:
        breaks: stretches that followed another one.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._run: Run | None = None
        self._begin = 0
        self.breaks = 0

    def take(self, part: Part) -> tuple[int, int]:
        """Take the next part; return the start of its stretch, and how many samples of that lie before the part."""
        block = part.block()
        if self._run is None or not self._run.continues(block, self._session.session):
            self.breaks += self._run is not None
            self._run, self._begin = Run.begin(block, self._session.session), 0
            if part.start_ns == self._session.raw_ns:
                self._run.start_ns = self._session.anchor_ns
                rate = Fraction(max(1, round(block.rate_hz * 1000)), 1000)
                self._run.samples = round(Fraction(part.start_ns - self._session.anchor_ns, NS_PER_S) * rate)
        run = self._run
        start_ns, before = run.start_ns + offset_ns(self._begin, part.rate_hz), run.samples - self._begin
        bad = _bad_samples(part)
        if bad:  # the run goes on, as it does for the cutter
            self._begin = run.samples + bad[-1] + 1
        run.samples += len(part.values)
        return start_ns, before


def _aligned(parts: Iterable[Part], session: Session, spec: WindowSpec, first_sample: int | None) -> Iterator[Block]:
    """The parts as blocks; a stretch that was shortened begins at a sample where a window begins."""
    stretches = Stretches(session)
    skip = 0
    for part in parts:
        block = part.block()
        start_ns, before = stretches.take(part)
        shortened = part.start_ns == session.raw_ns
        if shortened:
            skip = -before % restart_samples(spec, block.rate_hz) if first_sample is None else first_sample
        elif not before:
            skip = 0
        skip = min([skip, *_bad_samples(part)[:1]])  # nothing is counted over a value that is not a number
        if skip >= len(block.values):
            skip -= len(block.values)
            continue
        if before or shortened:  # its nominal time, as it was before the stretch was shortened
            nominal_ns = start_ns + offset_ns(before + skip, block.rate_hz)
            block = replace(block, start_ns=nominal_ns, values=block.values[skip:])
            skip = 0
        yield block


def _bad_samples(part: Part) -> list[int]:
    """Numbers of the samples that hold a value which is not a number."""
    if part.values.dtype.kind != "f":
        return []
    return [int(number) for number in np.flatnonzero(~np.isfinite(part.values).all(axis=1))]


def restart_samples(spec: WindowSpec, rate_hz: float) -> int:
    """A stretch that begins so many samples later, or a multiple of that, has the same windows."""
    return (Fraction(spec.hop) / ratio_of(rate_hz, spec.rate_hz)).numerator
