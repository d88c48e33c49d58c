"""Whose the sessions may be of which nobody has said so."""

from __future__ import annotations

from bedside.agent.buffer.kin import may_be_of
from bedside.agent.buffer.rows import Session
from bedside.core.ids import SessionId, StreamId

BED, OTHER = StreamId("bed-4"), StreamId("bed-5")


def session(name: str, opened_ns: int, origin: str, stream: StreamId = BED) -> Session:
    return Session(SessionId(name), stream, opened_ns, None, True, origin)


def test_what_came_late_or_by_itself_may_be_of_who_was_put_to_bed_last() -> None:
    sessions = [
        session("before", 0, "gap"),
        session("anna", 10, "adt"),
        session("bert", 100, "cli"),
        session("after", 200, "after-close"),
        session("late", 50, "late"),
        session("at-once", 100, "late"),
        session("gap", 60, "gap"),
        session("other", 70, "gap", OTHER),
    ]
    assert may_be_of(sessions) == {"late": "anna", "gap": "anna", "at-once": "bert", "after": "bert"}
