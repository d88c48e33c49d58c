"""Which sessions that began by themselves, or late, may be of the person of one that somebody opened.

A backlog of the person before lies in sessions of its own (see `late`), and so does what came after a gap: to whom they
belong nobody has said, and whoever erases a person's session must be told of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from bedside.agent.buffer.rows import Session
from bedside.agent.buffer.sessions import LATE, UNSAID
from bedside.core.ids import SessionId, StreamId


def may_be_of(sessions: Iterable[Session]) -> dict[SessionId, SessionId]:
    """For each of which nobody has said whose it is: the session of its stream that somebody opened last before it."""
    found: dict[SessionId, SessionId] = {}
    said: dict[StreamId, SessionId] = {}
    for one in sorted(sessions, key=lambda one: (one.opened_ns, one.origin in UNSAID or one.origin == LATE)):
        if one.origin not in UNSAID and one.origin != LATE:
            said[one.stream] = one.session
        elif one.stream in said:
            found[one.session] = said[one.stream]
    return found
