"""Labels of a device: who says what about which time, in which session.

Invariants:
    * A label lies inside one session of its stream. Which one follows from its start, also when that session is closed.
    * A batch is stored as a whole or not at all, and durably when the call returns.
    * The same label again (place, name, value and origin) adds nothing. A withdrawn one may be added anew, but not by
      the file that it came from: who withdrew it has seen that line.
    * No label ends in the future: after now, and after the end of what its stream has said, by a minute.
    * Nothing is deleted: a withdrawn label stays, marked, until its session is erased.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bedside.agent.buffer.bounds import END_NS
from bedside.agent.buffer.decoding import label_of
from bedside.agent.buffer.eviction import insert_label
from bedside.agent.buffer.plausibility import Known, implausible, when
from bedside.agent.buffer.rows import MAX_LABEL_BYTES, Label, is_label_name
from bedside.agent.buffer.store import BufferStore
from bedside.core.errors import BedsideError, MalformedError, ProtocolError
from bedside.core.ids import SessionId, StreamId, check_id
from bedside.service.text import bounded

MAX_LABELS: Final = 1_024
"""Labels of one batch: a tenth of a second, in which the agent does nothing else."""

PAGE_LABELS: Final = 4_096
"""Labels of one page of a list."""

_MAX_OVERLAPPED: Final = 1_024
"""Labels from before that a batch is held against: the latest."""

FROM_FILE: Final = "csv:"
"""How the origin of labels begins that come from a file; its name follows."""

FUTURE_NS: Final = 60_000_000_000
"""By so much a label may end after now: clocks differ."""
MAX_FAULTS: Final = 100
"""Refused labels of a batch after which nobody looks further."""

MAX_VALUE: Final = 1e30
"""Magnitude of a label's value: what models learn from is float32."""

_ORIGIN: Final = re.compile(r"cli|api|csv:.{1,60}")


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a batch.

    Attributes:
        labels: as they are stored, in the order in which they were asked for.
        new: how many of them were not there before.
        warnings: what was stored and looks wrong, a sentence each: a class that no model knows, a label that says
            something else than another one over the same time.
    """

    labels: tuple[Label, ...]
    new: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one label of a batch was refused.

    Attributes:
        index: its place in the batch, from 0.
        code: of the error.
        sentence: of the error.
        remedy: of the error.
    """

    index: int
    code: str
    sentence: str
    remedy: str


class WrongLabelsError(ProtocolError):
    """Labels of a batch were refused, and so nothing was stored. Its code is that of the first one.

    Attributes:
        faults: of the first `MAX_FAULTS`, in the order of the batch.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        first = faults[0]
        many = f"{len(faults)} labels are refused; the first: " if len(faults) > 1 else ""
        super().__init__(first.code, f"{many}{first.sentence}", remedy=first.remedy)
        self.faults = tuple(faults)


class Labels:
    """The labels in one buffer file, for its writer."""

    def __init__(
        self,
        buffer: BufferStore,
        known: Callable[[], Known] = Known,
        unlearn: Callable[[SessionId], object] = lambda _: None,
    ) -> None:
        """Work on an open buffer.

        Args:
            buffer: the writer.
            known: tells what models are asked.
            unlearn: takes back what the device has learnt from a session of which a label is withdrawn.
        """
        self._buffer = buffer
        self._known = known
        self._unlearn = unlearn

    def add(self, asked: Sequence[Label], *, check_only: bool = False) -> Added:
        """Store a batch. Each needs a stream, or a session whose stream it takes; a session that is given must hold it.

        With `check_only` nothing is stored, and only what would be refused is raised.

        Raises:
            MalformedError: `too-many-labels`, `bad-label`, `bad-label-time`, `bad-label-origin` or `bad-id`.
            WrongLabelsError: `no-such-session`, `no-session-covers`, `label-crosses-session` or `label-in-future`.
                Nothing was stored.
            ProtocolError: `labels-full`. Nothing was stored.
            StoreError: `store-write`.
        """
        if len(asked) > MAX_LABELS:
            raise MalformedError(
                "too-many-labels", f"{len(asked)} labels at once are too many", remedy=f"send {MAX_LABELS} at most"
            )
        for label in asked:
            check_label(label)

        def work(tx: sqlite3.Connection) -> Added:
            placed = self._place_all(tx, asked)
            if check_only:
                return Added((), 0)
            before = _overlapped(tx, placed)
            done = [_add(tx, label) for label in placed]
            if any(new for _, new in done):
                self._buffer.quota.check_labels(tx)
            warnings = implausible([label for label, new in done if new], before, self._known())
            return Added(tuple(label for label, _ in done), sum(new for _, new in done), tuple(warnings))

        return self._buffer.run("labels", work)

    def _place_all(self, tx: sqlite3.Connection, asked: Sequence[Label]) -> list[Label]:
        """Every label with its stream and session. Raises WrongLabelsError."""
        placed: list[Label] = []
        faults: list[Fault] = []
        for index, label in enumerate(asked):
            try:
                placed.append(_place(tx, label))
                self._check_past(placed[-1])
            except BedsideError as error:
                faults.append(Fault(index, error.code, error.sentence, error.remedy))
            if len(faults) >= MAX_FAULTS:
                break
        if faults:
            raise WrongLabelsError(faults)
        return placed

    def _check_past(self, label: Label) -> None:
        now_ns = self._buffer.clock.now_ns()
        if label.end_ns > now_ns + FUTURE_NS and label.end_ns > self._signal_ns(label.stream) + FUTURE_NS:
            raise ProtocolError(
                "label-in-future",
                f"label {label.label!r} ends in the future, at {when(label.end_ns)}: it is {when(now_ns)}",
                remedy="give an end that has been; times without a zone are UTC",
            )

    def _signal_ns(self, stream: StreamId) -> int:
        return self._buffer.sessions.last_end_ns(stream)

    def withdraw(self, number: int) -> Label:
        """Mark a label as withdrawn, durably, and return it; it is used no more, and its line stays.

        What was learnt from its session is taken back first.

        Raises:
            ProtocolError: `no-such-label`.
            StoreError: `store-write`.
        """
        row = self._buffer.database.row("SELECT * FROM labels WHERE id = ?", (number,))
        if row is None:
            raise ProtocolError(
                "no-such-label", f"there is no label {number}", remedy="bedside agent label list DIRECTORY"
            )
        self._unlearn(SessionId(row["session"]))
        self._buffer.run(
            "withdraw label", lambda tx: tx.execute("UPDATE labels SET withdrawn = 1 WHERE id = ?", (number,))
        )
        return replace(label_of(row), withdrawn=True)

    def page(self, session: SessionId, after: int) -> list[Label]:
        """The next labels of a session with numbers above `after`, by number, the withdrawn ones among them."""
        sql = "SELECT * FROM labels WHERE session = ? AND id > ? ORDER BY id LIMIT ?"
        return [label_of(row) for row in self._buffer.database.rows(sql, (session, after, PAGE_LABELS))]


def check_label(label: Label) -> None:
    """Look at everything in a label that no session is needed for.

    Raises:
        MalformedError: `bad-label`, `bad-label-time`, `bad-label-origin` or `bad-id`.
    """
    name = label.label
    if not is_label_name(name):
        raise MalformedError(
            "bad-label",
            f"{bounded(name, 40)!r} is no name of a label",
            remedy=f"use 1 to {MAX_LABEL_BYTES} bytes of visible text",
        )
    if label.value is not None and not abs(label.value) <= MAX_VALUE:
        raise MalformedError(
            "bad-label", f"label {name!r} has a value that is no number", remedy="leave out what was not measured"
        )
    if not 0 <= label.start_ns < label.end_ns < END_NS:
        raise MalformedError(
            "bad-label-time", f"label {name!r} does not end after its start", remedy="give an end behind the start"
        )
    if _ORIGIN.fullmatch(label.origin) is None or bounded(label.origin) != label.origin:
        raise MalformedError("bad-label-origin", f"{bounded(label.origin, 40)!r} is no origin: cli, api or csv:NAME")
    if label.stream:
        check_id(label.stream, "stream")
    if not (label.stream or label.session):
        raise MalformedError("bad-label", f"label {name!r} names neither stream nor session", remedy="name one")


def _add(tx: sqlite3.Connection, label: Label) -> tuple[Label, bool]:
    """Store one label, or find it; whether it is new."""
    same = (
        "SELECT * FROM labels WHERE session = ? AND start_ns = ? AND end_ns = ? AND label = ? AND origin = ?"
        " AND value IS ?"
    )
    place = (label.session, label.start_ns, label.end_ns, label.label, label.origin, label.value)
    for row in tx.execute(same, place).fetchall():
        if not row["withdrawn"] or label.origin.startswith(FROM_FILE):
            return label_of(row), False
    return replace(label, number=insert_label(tx, label)), True


def _place(tx: sqlite3.Connection, label: Label) -> Label:
    """The label with the stream and the session that it belongs to."""
    stream = label.stream
    if label.session:
        row = tx.execute("SELECT stream FROM sessions WHERE session = ?", (label.session,)).fetchone()
        if row is None or (stream and stream != row["stream"]):
            raise ProtocolError(
                "no-such-session",
                f"there is no session {bounded(label.session, 32)} of that stream",
                remedy="bedside agent session list DIRECTORY",
            )
        stream = StreamId(row["stream"])
    row = tx.execute(
        "SELECT session, closed_ns FROM sessions WHERE stream = ? AND opened_ns <= ?"
        " AND (closed_ns IS NULL OR closed_ns > ?) AND ? IN ('', session) ORDER BY opened_ns DESC, number DESC LIMIT 1",
        (stream, label.start_ns, label.start_ns, label.session),
    ).fetchone()
    what = f"label {label.label!r} from {when(label.start_ns)}"
    if row is None:
        raise ProtocolError(
            "no-session-covers",
            f"{what} on begins where no session of {stream} is",
            remedy="bedside agent session list DIRECTORY",
        )
    if row["closed_ns"] is not None and label.end_ns > row["closed_ns"]:
        raise ProtocolError(
            "label-crosses-session",
            f"{what} goes on after its session closed at {when(row['closed_ns'])}",
            remedy="end it there: no label belongs to two sessions",
        )
    return replace(label, stream=stream, session=SessionId(row["session"]), number=0, withdrawn=False)


def _overlapped(tx: sqlite3.Connection, placed: Sequence[Label]) -> list[Label]:
    """Labels that hold in the sessions of a batch, and may share time with it."""
    spans: dict[SessionId, tuple[int, int]] = {}
    for one in placed:
        start_ns, end_ns = spans.get(one.session, (one.start_ns, one.end_ns))
        spans[one.session] = min(start_ns, one.start_ns), max(end_ns, one.end_ns)
    sql = (
        "SELECT * FROM labels WHERE session = ? AND start_ns < ? AND end_ns > ? AND NOT withdrawn"
        " ORDER BY start_ns DESC LIMIT ?"
    )
    found: list[Label] = []
    for session, (start_ns, end_ns) in spans.items():
        rows = tx.execute(sql, (session, end_ns, start_ns, _MAX_OVERLAPPED - len(found)))
        found += [label_of(row) for row in rows]
    return found
