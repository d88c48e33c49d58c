"""Retention: raw signal leaves windows and summaries behind, and those go when they are old.

    raw (hours) -> labelled windows (days) and a summary per minute (a year)

A step is prepared by reading, in any thread, and taken by the buffer's writer in one transaction of some ten
milliseconds: a minute of one session, or a few hundred old rows. Whoever runs it calls again while there is more.

Invariants:
    * A minute expires as a whole, and only when the signal behind it is there that its last windows need, or will never
      come.
    * Whatever is cut off in the middle is done again from the start of the step, or was done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bedside.agent.buffer.derived import SealedWindow, seal_window
from bedside.agent.buffer.expiry import ExpiredMinute, ExpiredRows, Swept
from bedside.agent.buffer.keys import Keys
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Session
from bedside.agent.buffer.schema import LAST_NS, RAW_TABLES
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import BufferConfig
from bedside.agent.windows.stored import Stretches, behind_ns, cut, cut_records, lead_ns, starts_before, to_store
from bedside.agent.windows.summarising import PartSummary, RecordSummary
from bedside.core.clock import Entropy
from bedside.core.ids import SessionId, StreamId
from bedside.ondevice.windows.labelling import MIN_COVER
from bedside.ondevice.windows.part import NS_PER_MINUTE, NS_PER_S, Part, offset_ns
from bedside.ondevice.windows.targets import Answers, Question

_NS_PER_HOUR: Final = 3_600 * NS_PER_S
_NS_PER_DAY: Final = 24 * _NS_PER_HOUR
_QUIET_NS: Final = 10 * NS_PER_MINUTE
"""An open session to which nothing was added for so long counts as one that ends there."""
_ROWS: Final = 256
_SESSIONS: Final = 4


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """How long what is kept.

    Attributes:
        raw_ns: signal and records.
        raw_ns_of: the same by stream, where it differs.
        windows_ns: labelled windows.
        summaries_ns: summaries, predictions, explanations, labels, alarms and closed sessions. Labels stay as long as
            windows do, at least.
    """

    raw_ns: int
    windows_ns: int
    summaries_ns: int
    raw_ns_of: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, config: BufferConfig) -> RetentionRules:
        """As `agent.toml` has them."""
        return cls(
            round(config.raw_hours * _NS_PER_HOUR),
            round(config.windows_days * _NS_PER_DAY),
            round(config.summaries_days * _NS_PER_DAY),
            {one.stream: round(one.raw_hours * _NS_PER_HOUR) for one in config.streams if one.raw_hours is not None},
        )


class Retention:
    """One buffer's. `prepare` may run in another thread, one at a time."""

    def __init__(self, path: Path, keys: Keys, rules: RetentionRules, entropy: Entropy) -> None:
        """Prepare to read the buffer at `path`, and to seal what comes of it."""
        self._path = path
        self._sealer = Sealer(keys, entropy)
        self._keys = keys
        self._rules = rules
        self._ends: dict[SessionId, tuple[int, int]] = {}

    def run(self, store: BufferStore, now_ns: int, questions: Sequence[Question]) -> bool:
        """Take one step; False when there was none to take.

        Raises:
            StoreError: `store-read`, `store-write`; nothing is lost.
        """
        step = self.prepare(now_ns, questions)
        if step is not None:
            store.expire(step)
        return step is not None

    def prepare(self, now_ns: int, questions: Sequence[Question]) -> ExpiredMinute | ExpiredRows | None:
        """The next step; None when nothing is due.

        Args:
            now_ns: nanoseconds since 1970.
            questions: to the models that serve, each bound to its stream: labelled windows of these are kept.

        Raises:
            StoreError: `store-open`, `store-read`.
        """
        with closing(BufferReader(self._path, self._keys)) as reader:
            older: set[StreamId] = set()
            for session in reader.unexpired():
                horizon_ns = now_ns - self._rules.raw_ns_of.get(session.stream, self._rules.raw_ns)
                step = self._minute(reader, session, horizon_ns, now_ns, questions, alone=session.stream not in older)
                if step is not None:
                    return step
                older.add(session.stream)
            return self._old_rows(reader, now_ns)

    def _minute(
        self,
        reader: BufferReader,
        session: Session,
        horizon_ns: int,
        now_ns: int,
        questions: Sequence[Question],
        *,
        alone: bool,
    ) -> ExpiredMinute | None:
        begin_ns = max(session.opened_ns, session.expired_ns)
        if (begin_ns // NS_PER_MINUTE + 1) * NS_PER_MINUTE > horizon_ns:
            return None
        first_ns = reader.first_raw_ns(session.stream, session.session, session.expired_ns, horizon_ns)
        if first_ns is None:
            return self._end(reader, session, horizon_ns, alone=alone)
        border_ns = (first_ns // NS_PER_MINUTE + 1) * NS_PER_MINUTE
        if border_ns > horizon_ns:
            return None
        bound = [question for question in questions if question.window.stream == session.stream]
        minute = _Minute(reader, self._sealer, session, border_ns, bound)
        if session.closed_ns is None and not (minute.goes_on() or self._is_quiet(session, minute.last_ns, now_ns)):
            return None
        return minute.expired(alone=alone)

    def _is_quiet(self, session: Session, last_ns: int, now_ns: int) -> bool:
        known_ns, since_ns = self._ends.get(session.session, (-1, 0))
        if known_ns != last_ns:
            self._ends[session.session] = (last_ns, now_ns)
            return False
        return now_ns - since_ns >= _QUIET_NS

    def _end(self, reader: BufferReader, session: Session, horizon_ns: int, *, alone: bool) -> ExpiredMinute | None:
        """A closed session of which only the lead is left, or nothing."""
        if session.closed_ns is None or session.closed_ns + _QUIET_NS > horizon_ns:
            return None
        self._ends.pop(session.session, None)
        left = {table: reader.raw_ids(table, session.stream, session.session) for table in RAW_TABLES}
        first_second = session.closed_ns // NS_PER_S if alone else 0
        return ExpiredMinute(session, LAST_NS, 0, 0, first_second, left["blobs"], left["records"])

    def _old_rows(self, reader: BufferReader, now_ns: int) -> ExpiredRows | None:
        rules = self._rules
        long_ns = now_ns - rules.summaries_ns
        ages: tuple[tuple[Swept, int], ...] = (
            ("windows", now_ns - rules.windows_ns),
            ("summaries", long_ns),
            ("explanations", long_ns),
            ("predictions", long_ns),
            ("labels", now_ns - max(rules.summaries_ns, rules.windows_ns)),
            ("alarms", long_ns),
        )
        for table, before_ns in ages:
            keys = reader.old_keys(table, before_ns, _ROWS)
            if keys:
                return ExpiredRows(table, keys)
        sessions = reader.old_sessions(now_ns - max(rules.summaries_ns, rules.windows_ns), _SESSIONS)
        return ExpiredRows(sessions=sessions) if sessions else None


class _Minute:
    """The rest of one minute of a session, which is to expire.

    Attributes:
        last_ns: start of the last part or record that was read.
    """

    def __init__(
        self, reader: BufferReader, sealer: Sealer, session: Session, border_ns: int, questions: Sequence[Question]
    ) -> None:
        self._reader = reader
        self._sealer = sealer
        self._session = session
        self._border_ns = border_ns
        self._questions = questions
        self._specs = [question.window for question in questions]
        signal = [spec for spec in self._specs if not spec.fields]
        needed_ns = max(
            (offset_ns(spec.length, spec.rate_hz) + behind_ns(spec) for spec in signal), default=2 * NS_PER_S
        )
        self._end_ns = border_ns + needed_ns
        self._parts = list(reader.numbered_parts(session.stream, session.session, 0, self._end_ns))
        self._records = list(reader.numbered_records(session.stream, session.session, 0, border_ns))
        times = [part.start_ns for _, part in self._parts] + [record.time_ns for _, record in self._records]
        self.last_ns = max(times, default=0)

    def goes_on(self) -> bool:
        """Whether there is more of the session behind what the minute's windows need."""
        session, until_ns = self._session, self._end_ns + _NS_PER_HOUR
        return self._reader.first_raw_ns(session.stream, session.session, self._end_ns, until_ns) is not None

    def expired(self, *, alone: bool) -> ExpiredMinute:
        """Cut its labelled windows, sum it up."""
        session, parts = self._session, self._parts
        leads_ns = [lead_ns(spec, part.rate_hz) for spec in self._specs for _, part in parts[:1]]
        keep_ns = self._border_ns - max(leads_ns, default=0)
        signal, tabular = PartSummary(session), RecordSummary(session)
        stretches = Stretches(session)
        raw_ns = anchor_ns = 0
        gone: list[int] = []
        kept = False
        for number, part in parts:
            start_ns, before = stretches.take(part)
            if session.expired_ns <= part.start_ns < self._border_ns:
                signal.add(part, follows=before > 0 or (part is parts[0][1] and not session.expired_ns))
            if part.start_ns < keep_ns:
                gone.append(number)
            elif not kept:
                kept = True
                raw_ns, anchor_ns = (part.start_ns, start_ns) if before else (0, 0)
        for _, record in self._records:
            if record.time_ns >= session.expired_ns:
                tabular.add(record)
        minute = (self._border_ns - 1) // NS_PER_MINUTE
        return ExpiredMinute(
            session,
            self._border_ns,
            raw_ns,
            anchor_ns,
            keep_ns // NS_PER_S if alone else 0,
            gone,
            [number for number, _ in self._records],
            self._windows([part for _, part in parts]),
            [summary for summary in (signal.summary(minute), tabular.summary(minute)) if summary is not None],
        )

    def _windows(self, parts: Iterable[Part]) -> list[SealedWindow]:
        """The minute's labelled windows."""
        session = self._session
        labels = [one for one in self._reader.labels(session.session) if one.stream == session.stream]
        found: list[SealedWindow] = []
        for question in self._questions:
            spec, answers = question.window, Answers(question, labels, MIN_COVER)
            if not answers.possible:
                continue
            records = [record for _, record in self._records]
            for window in cut_records(records, session, spec) if spec.fields else cut(parts, session, spec):
                if starts_before(window.start_ns, session.expired_ns, spec):
                    continue
                if not starts_before(window.start_ns, self._border_ns, spec):
                    break
                name = answers.kept_as(window)
                if name is not None:
                    found.append(seal_window(self._sealer, to_store(window, question, name, session)))
        return found
