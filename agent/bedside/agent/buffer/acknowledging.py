"""What one source may acknowledge to its senders: what is on the disk, or counted there as impossible to keep.

Invariants:
    * It returns after a commit that holds everything which the source had yielded of the streams: signal, records,
      labels, sessions, and what the quarantine and the counters say of the rest.
    * It raises where the disk has refused something of them since the source was last answered, or just now. The
      source fails with it, is started again, and its senders send again; what had been kept is known by then.
    * While the disk refuses or hangs it does neither.
"""

from __future__ import annotations

from collections.abc import Collection

from bedside.agent.buffer.committer import Committer
from bedside.agent.buffer.losses import Losses
from bedside.core.errors import StoreError
from bedside.core.ids import StreamId


class Acknowledging:
    """The `SourceContext.durable` of one source."""

    def __init__(self, committer: Committer, losses: Losses) -> None:
        self._committer = committer
        self._losses = losses
        self._began = losses.number
        self._told: dict[StreamId, int] = {}

    async def __call__(self, streams: Collection[StreamId]) -> None:
        """Wait until all that the source has yielded of these streams is durable.

        Raises:
            StoreError: `not-kept`.
            UnavailableError: `agent-stops`.
        """
        since = {stream: self._told.get(stream, self._began) for stream in streams}
        lost = [stream for stream in streams if self._losses.has_lost(stream, since[stream])]
        await self._committer.committed(streams)
        lost += [stream for stream in streams if self._losses.has_lost(stream, since[stream])]
        self._told |= dict.fromkeys(streams, self._losses.number)
        if lost:
            raise StoreError(
                "not-kept",
                f"the disk has refused something of stream {lost[0]}, which is not acknowledged",
                remedy="its sender sends it again; look at `bedside agent health` and at the disk",
            )
