"""Sessions that a hospital's ADT messages open and close, over all streams of a bed.

Invariants:
    * Messages are believed in the order of what they tell, not of their arrival: one that is older than the last that
      counted changes nothing, and is counted. Nor does one that comes again.
    * A session begins behind what is stored of its stream: no sample is in two sessions.
    * Signal from before an admission is not the admitted person's.
"""

from __future__ import annotations

from collections.abc import Callable

from bedside.agent.sources.mllp.beds import Bed
from bedside.core.ids import StreamId
from bedside.core.samples import Mark, MarkKind

ORIGIN = "adt"


class BedSessions:
    """What ADT has said so far.

    Attributes:
        ignored: messages that changed nothing, because they were older or came again.
    """

    def __init__(
        self,
        last_end_ns: Callable[[StreamId], int],
        open_session: Callable[[StreamId], tuple[int, str] | None],
    ) -> None:
        """Begin; what an earlier process has stored is taken up.

        Args:
            last_end_ns: end of what is stored of a stream.
            open_session: begin and origin of the session that is open on a stream.
        """
        self._last_end_ns = last_end_ns
        self._open_session = open_session
        self._last: dict[StreamId, tuple[int, MarkKind]] = {}
        self._admitted_ns: dict[StreamId, int] = {}
        self.ignored = 0

    def marks(self, bed: Bed, kind: MarkKind, at_ns: int) -> list[Mark]:
        """Somebody has come to a bed, or left it: a mark for each of its streams where that is news."""
        marks = []
        for stream in bed.all_streams:
            last_ns, last_kind = self._known(stream)
            if at_ns < last_ns or (at_ns == last_ns and kind is last_kind):
                continue
            begin_ns = max(at_ns, self._last_end_ns(stream)) if kind is MarkKind.SESSION_OPEN else at_ns
            self._last[stream] = (at_ns, kind)
            if kind is MarkKind.SESSION_OPEN:
                self._admitted_ns[stream] = begin_ns
            marks.append(Mark(stream, begin_ns, begin_ns, "", ORIGIN, kind))
        self.ignored += not marks
        return marks

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
                if opened[1] == ORIGIN:
                    self._admitted_ns[stream] = opened[0]
        return self._last[stream]
