"""Sessions that a hospital's ADT messages open and close, over all streams of a bed.

Invariants:
    * Messages are believed in the order of what they tell, not of their arrival: one that is older than the last that
      counted changes nothing, and is counted. Nor does one that comes again.
    * Who leaves ends their own session: what is told of somebody else closes nothing, and is counted. Whose a session
      is, is known as hashes (see `whose`), in memory: after a restart of the agent, and of messages without numbers,
      whoever leaves the bed is who lies there.
    * A session begins when its message says. What is stored of the stream from then on stays where it is, and the
      buffer tells that it may be another person's, and trains on none of it (`after-late-adt`).
    * Signal from before an admission is not the admitted person's.
"""

from __future__ import annotations

from collections.abc import Callable

from bedside.agent.buffer.sessions import ADT, BY_HAND
from bedside.agent.formats.hl7.whose import NOBODY, Whose
from bedside.agent.sources.mllp.beds import Bed
from bedside.core.ids import StreamId
from bedside.core.samples import Mark, MarkKind

Lying = dict[StreamId, tuple[int, Whose]]
"""When somebody came, and who: it outlives what reads messages."""


class BedSessions:
    """What ADT has said so far.

    Attributes:
        ignored: messages that changed nothing, because they were older or came again.
        of_others: messages that closed nothing, because somebody else lies there.
        late: admissions that were told after signal or records of their time had been stored.
    """

    def __init__(
        self,
        last_end_ns: Callable[[StreamId], int],
        open_session: Callable[[StreamId], tuple[int, str] | None],
        lying: Lying | None = None,
    ) -> None:
        """Begin; what an earlier process has stored is taken up.

        Args:
            last_end_ns: end of what is stored of a stream.
            open_session: begin and origin of the session that is open on a stream.
            lying: who lies where, as far as this process has heard; changed in place.
        """
        self._last_end_ns = last_end_ns
        self._open_session = open_session
        self._last: dict[StreamId, tuple[int, MarkKind]] = {}
        self._admitted_ns: dict[StreamId, int] = {}
        self._lying = lying if lying is not None else {}
        self.ignored = self.of_others = self.late = 0

    def marks(
        self, bed: Bed, kind: MarkKind, at_ns: int, who: Whose = NOBODY, *, takes_back: bool = False
    ) -> list[Mark]:
        """Somebody has come to a bed, or left it: a mark for each of its streams where that is news."""
        streams = [one for one in bed.all_streams if kind is MarkKind.SESSION_OPEN or not self._is_others(one, who)]
        marks = [mark for one in streams if (mark := self._mark(one, kind, at_ns, who, takes_back)) is not None]
        if not streams:
            self.of_others += 1
        elif not marks:
            self.ignored += 1
        if kind is MarkKind.SESSION_OPEN and any(at_ns < self._last_end_ns(mark.stream) for mark in marks):
            self.late += 1
        return marks

    def _mark(self, stream: StreamId, kind: MarkKind, at_ns: int, who: Whose, takes_back: bool) -> Mark | None:
        last_ns, last_kind = self._known(stream)
        if takes_back:
            same = (lies := self._lies(stream)) is not None and lies.is_same(who)
            if kind is MarkKind.SESSION_OPEN and same:  # has never left
                return None
            at_ns = max(at_ns, last_ns) if same else at_ns  # some senders date it as what it takes back
        if at_ns < last_ns or (at_ns == last_ns and kind is last_kind):
            return None
        self._last[stream] = (at_ns, kind)
        if kind is MarkKind.SESSION_OPEN:
            self._admitted_ns[stream] = max(at_ns, self._last_end_ns(stream))
            self._lying[stream] = (at_ns, who)
        else:
            self._lying.pop(stream, None)
        return Mark(stream, at_ns, at_ns, "", ADT, kind)

    def _is_others(self, stream: StreamId, who: Whose) -> bool:
        lies = self._lies(stream)
        return lies is not None and lies.is_another(who)

    def _lies(self, stream: StreamId) -> Whose | None:
        """Who lies there; None where nobody has said so, or people have opened a session since."""
        came_ns, who = self._lying.get(stream, (0, None))
        opened = self._open_session(stream)
        by_hand = opened is not None and opened[1] in BY_HAND and opened[0] > came_ns
        return None if by_hand else who

    def is_another(self, stream: StreamId, time_ns: int) -> bool:
        """Whether signal of that time is of somebody who lay there before."""
        self._known(stream)
        return time_ns < self._admitted_ns.get(stream, 0)

    def _known(self, stream: StreamId) -> tuple[int, MarkKind]:
        """When the last that counted happened, and what it was."""
        if stream not in self._last:
            opened = self._open_session(stream)
            if opened is None:
                self._last[stream] = (self._last_end_ns(stream), MarkKind.SESSION_CLOSE)
            else:
                self._last[stream] = (opened[0], MarkKind.SESSION_OPEN)
                if opened[1] == ADT:
                    self._admitted_ns[stream] = opened[0]
        return self._last[stream]
