"""Labels of a device: who says what about which time, in which session.

Invariants:
    * A label lies inside one session of its stream. Which one follows from its start, also when that session is closed.
    * A batch is stored as a whole or not at all, and durably when the call returns.
    * The same label again (place, name and origin) adds nothing. A withdrawn one may be added anew, but not by the file
      that it came from: who withdrew it has seen that line.
    * Nothing is deleted: a withdrawn label stays, marked, until its session is erased.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from bedside.agent.buffer.bounds import END_NS
from bedside.agent.buffer.rows import Label
from bedside.agent.buffer.store import BufferStore
from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.ids import SessionId, StreamId, check_id
from bedside.service.text import bounded

MAX_LABELS: Final = 16_384
"""Labels of one batch, or of one page of a list: below 4 MiB at their longest, the size of one message."""

MAX_LABEL_BYTES: Final = 64
"""Bytes of a label's name in UTF-8."""

FROM_FILE: Final = "csv:"
"""How the origin of labels begins that come from a file; its name follows."""

_ORIGIN: Final = re.compile(r"cli|api|csv:.{1,60}")


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a batch.

    Attributes:
        labels: as they are stored, in the order in which they were asked for.
        new: how many of them were not there before.
    """

    labels: tuple[Label, ...]
    new: int


class Labels:
    """The labels in one buffer file, for its writer."""

    def __init__(self, buffer: BufferStore) -> None:
        self._buffer = buffer

    def add(self, asked: Sequence[Label]) -> Added:
        """Store a batch. Each needs a stream, or a session whose stream it takes; a session that is given must hold it.

        Raises:
            MalformedError: `too-many-labels`, `bad-label`, `bad-label-time`, `bad-label-origin` or `bad-id`.
            ProtocolError: `no-such-session`, `no-session-covers` or `label-crosses-session`. Nothing was stored.
            StoreError: `store-write`.
        """
        if len(asked) > MAX_LABELS:
            raise MalformedError(
                "too-many-labels", f"{len(asked)} labels at once are too many", remedy=f"send {MAX_LABELS} at most"
            )
        for label in asked:
            check_label(label)

        def work(tx: sqlite3.Connection) -> Added:
            done = [_add(tx, label) for label in asked]
            return Added(tuple(label for label, _ in done), sum(new for _, new in done))

        return self._buffer.run("labels", work)

    def withdraw(self, number: int) -> Label:
        """Mark a label as withdrawn, durably, and return it; it is used no more, and its line stays.

        Raises:
            ProtocolError: `no-such-label`.
            StoreError: `store-write`.
        """

        def work(tx: sqlite3.Connection) -> Label:
            row = tx.execute("SELECT * FROM labels WHERE id = ?", (number,)).fetchone()
            if row is None:
                raise ProtocolError("no-such-label", f"there is no label {number}", remedy="bedside agent label list")
            tx.execute("UPDATE labels SET withdrawn = 1 WHERE id = ?", (number,))
            return replace(_label(row), withdrawn=True)

        return self._buffer.run("withdraw label", work)

    def page(self, session: SessionId, after: int) -> list[Label]:
        """The next labels of a session with numbers above `after`, by number, the withdrawn ones among them."""
        sql = "SELECT * FROM labels WHERE session = ? AND id > ? ORDER BY id LIMIT ?"
        return [_label(row) for row in self._buffer.database.rows(sql, (session, after, MAX_LABELS))]


def check_label(label: Label) -> None:
    """Look at everything in a label that no session is needed for.

    Raises:
        MalformedError: `bad-label`, `bad-label-time`, `bad-label-origin` or `bad-id`.
    """
    name = label.label
    if not name.strip() or len(name.encode("utf-8", "replace")) > MAX_LABEL_BYTES or bounded(name) != name:
        raise MalformedError(
            "bad-label",
            f"{bounded(name, 40)!r} is no name of a label",
            remedy=f"use 1 to {MAX_LABEL_BYTES} bytes of visible text",
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


def _add(tx: sqlite3.Connection, asked: Label) -> tuple[Label, bool]:
    """Store one label, or find it; whether it is new."""
    label = _place(tx, asked)
    same = "SELECT * FROM labels WHERE session = ? AND start_ns = ? AND end_ns = ? AND label = ? AND origin = ?"
    for row in tx.execute(same, (label.session, label.start_ns, label.end_ns, label.label, label.origin)).fetchall():
        if not row["withdrawn"] or label.origin.startswith(FROM_FILE):
            return _label(row), False
    number = tx.execute(
        "INSERT INTO labels (stream, session, start_ns, end_ns, label, origin) VALUES (?, ?, ?, ?, ?, ?)",
        (label.stream, label.session, label.start_ns, label.end_ns, label.label, label.origin),
    ).lastrowid
    return replace(label, number=number or 0), True


def _place(tx: sqlite3.Connection, label: Label) -> Label:
    """The label with the stream and the session that it belongs to."""
    stream = label.stream
    if label.session:
        row = tx.execute("SELECT stream FROM sessions WHERE session = ?", (label.session,)).fetchone()
        if row is None or (stream and stream != row["stream"]):
            raise ProtocolError(
                "no-such-session",
                f"there is no session {bounded(label.session, 32)} of that stream",
                remedy="bedside agent session list",
            )
        stream = StreamId(row["stream"])
    row = tx.execute(
        "SELECT session, closed_ns FROM sessions WHERE stream = ? AND opened_ns <= ?"
        " AND (closed_ns IS NULL OR closed_ns > ?) AND ? IN ('', session) ORDER BY opened_ns DESC, number DESC LIMIT 1",
        (stream, label.start_ns, label.start_ns, label.session),
    ).fetchone()
    what = f"label {label.label!r} from {_when(label.start_ns)}"
    if row is None:
        raise ProtocolError(
            "no-session-covers",
            f"{what} on begins where no session of {stream} is",
            remedy="bedside agent session list shows when sessions opened and closed",
        )
    if row["closed_ns"] is not None and label.end_ns > row["closed_ns"]:
        raise ProtocolError(
            "label-crosses-session",
            f"{what} goes on after its session closed at {_when(row['closed_ns'])}",
            remedy="end it there: no label belongs to two sessions",
        )
    return replace(label, stream=stream, session=SessionId(row["session"]), number=0, withdrawn=False)


def _when(time_ns: int) -> str:
    """A time for people, to the millisecond."""
    return datetime.fromtimestamp(time_ns // 1_000_000 / 1_000, UTC).isoformat(timespec="milliseconds")


def _label(row: sqlite3.Row) -> Label:
    return Label(
        StreamId(row["stream"]),
        SessionId(row["session"]),
        row["start_ns"],
        row["end_ns"],
        row["label"],
        row["origin"],
        bool(row["withdrawn"]),
        row["id"],
    )
