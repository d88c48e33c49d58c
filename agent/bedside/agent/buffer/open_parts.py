"""The parts of signal that are still being joined, one per stream, until they are sealed and wait for a commit."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

from bedside.agent.buffer.group import GroupCommit
from bedside.agent.buffer.joiner import Joiner
from bedside.agent.buffer.seal import Sealer
from bedside.agent.buffer.waiting import DROPPED, part_row
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block
from bedside.ondevice.windows.part import Part
from bedside.service.logs import event

_LOGGER = logging.getLogger(__name__)

OPEN_PART_S: Final = 1.06
"""An unfinished part is written at this age: one block later than a full one of a waveform."""


class OpenParts:
    """Of one buffer's writer."""

    def __init__(self, sealer: Sealer, group: GroupCommit) -> None:
        self._sealer = sealer
        self._group = group
        self._joiners: dict[StreamId, Joiner] = {}
        self._unsealed: set[StreamId] = set()

    def add(self, block: Block, session: SessionId, now_s: float) -> None:
        """Join a block that arrived at monotonic time `now_s`."""
        joiner = self._joiners.setdefault(block.stream, Joiner())
        opened_s = joiner.opened_s
        for part in joiner.add(block, session, now_s):
            self._seal(part, now_s if opened_s is None else opened_s)

    def close(self, streams: Collection[StreamId] | None = None) -> None:
        """End the unfinished parts of these streams, or of all."""
        for stream in self._joiners if streams is None else self._joiners.keys() & set(streams):
            self._close(self._joiners[stream])

    def close_old(self, now_s: float) -> None:
        """End the parts that are too old to go on waiting for samples."""
        for joiner in self._joiners.values():
            if joiner.opened_s is not None and now_s - joiner.opened_s >= OPEN_PART_S:
                self._close(joiner)

    def drop(self, session: SessionId) -> None:
        """Let go of what is joined of a session."""
        self._joiners = {name: joiner for name, joiner in self._joiners.items() if joiner.session != session}

    def _close(self, joiner: Joiner) -> None:
        opened_s = joiner.opened_s
        if opened_s is not None:
            for part in joiner.close():
                self._seal(part, opened_s)

    def _seal(self, part: Part, arrived_s: float) -> None:
        """Let a part wait for the next commit; one that cannot be sealed is dropped and counted, and stops no other."""
        waiting = self._group.waiting
        try:
            row = part_row(part, self._sealer.seal(part), self._sealer.key_id, arrived_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this part's, and other streams wait here too
            waiting.counts[part.stream, part.session, DROPPED["blobs"]] += 1
            if part.stream not in self._unsealed:
                self._unsealed.add(part.stream)
                event(_LOGGER, "part-dropped", level=logging.ERROR, stream=part.stream, reason=type(error).__name__)
            return
        waiting.add(row)
