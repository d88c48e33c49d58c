"""Puts what sources yield into the buffer; what it refuses is counted there, so that no source's account has a hole.

Invariant: in = taken + counted. `refused-blocks` and `refused-records` can never be kept, whatever the disk does, and
are as good as stored: an acknowledgement waits for their counters. `dropped-blocks`, `dropped-records` and
`dropped-labels` were refused by the disk, and are a loss that nobody may acknowledge.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

from bedside.agent.buffer.bounds import check_times, times_of
from bedside.agent.buffer.store import BufferStore
from bedside.core.errors import BedsideError, MalformedError, StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Mark, MarkKind, Record
from bedside.service.logs import event

Kept = TypeVar("Kept", Block, Record)

_LOGGER = logging.getLogger(__name__)
_RECOVERED_BLOCKS: Final = 250
"""Good blocks after which a failed store counts as sound again: ten seconds of a waveform."""
_NEVER: Final = frozenset({"empty-block", "buffer-range", "sessions-full"})
"""Codes of what another try would refuse as well."""


class Keeper:
    """Of one buffer. Use from the thread that owns it.

    Attributes:
        dropped: blocks and records of each stream that are not in the buffer, since the process started.
        store_error: why the buffer refuses; None while it takes everything.
    """

    def __init__(self, buffer: BufferStore) -> None:
        self._buffer = buffer
        self._good = 0
        self._told: set[tuple[StreamId, str]] = set()
        self.dropped: Counter[StreamId] = Counter()
        self.store_error: BedsideError | None = None

    def block(self, block: Block) -> SessionId | None:
        """Buffer a block, and say whose it is; None for what nobody can use."""
        return self._keep(block, self._buffer.append, "blocks")

    def record(self, record: Record) -> SessionId | None:
        """Buffer a record, likewise."""
        return self._keep(record, self._buffer.add_record, "records")

    def mark(self, mark: Mark) -> None:
        """Buffer a mark; a session's begin or end counts also where the disk refuses it."""
        ahead = self._buffer.ahead
        try:
            ahead.settle()
            if not ahead.waits(mark.stream):
                self._buffer.mark(mark)
                return
            check_times(mark.start_ns, mark.end_ns)
        except StoreError as error:
            self.failed(error)
            if error.code in _NEVER:
                self._buffer.count(mark.stream, ahead.current(mark.stream) or "", "refused-marks", 1)
                return
        if mark.kind is MarkKind.SESSION_OPEN:
            ahead.open(mark.stream, mark.start_ns, mark.origin)
        elif mark.kind is MarkKind.SESSION_CLOSE:
            ahead.close(mark.stream, mark.start_ns)
        else:  # the session that is open in the file may be another person's
            self._lose(mark.stream, ahead.current(mark.stream), "labels")

    def failed(self, error: StoreError) -> None:
        """The buffer has refused something, or could not be committed."""
        if self.store_error is None:
            event(_LOGGER, "buffer-refuses", level=logging.ERROR, error=error)
        self.store_error = error
        self._good = 0

    def _keep(self, arrived: Kept, keep: Callable[[Kept], SessionId], kind: str) -> SessionId | None:
        """What the disk refuses is counted, and is still somebody's."""
        ahead = self._buffer.ahead
        try:
            start_ns, end_ns = times_of(arrived)
            if ahead.waits(arrived.stream):
                ahead.settle()
            if not ahead.waits(arrived.stream):
                session = keep(arrived)
                self._held()
                return session
        except MalformedError as error:
            if (arrived.stream, error.code) not in self._told:  # once: a source that errs does so with every block
                self._told.add((arrived.stream, error.code))
                event(_LOGGER, f"{type(arrived).__name__.lower()}-refused", level=logging.WARNING, error=error)
            self._refuse(arrived.stream, kind)
            return None
        except StoreError as error:
            self.failed(error)
            if error.code in _NEVER:
                self._refuse(arrived.stream, kind)
                return None
        self.dropped[arrived.stream] += 1
        session_ahead = ahead.of(arrived.stream, start_ns, end_ns, may_be_late=isinstance(arrived, Record))
        self._lose(arrived.stream, session_ahead, kind)
        return session_ahead

    def _refuse(self, stream: StreamId, kind: str) -> None:
        self.dropped[stream] += 1
        self._buffer.count(stream, "", f"refused-{kind}", 1)

    def _lose(self, stream: StreamId, session: SessionId | None, kind: str) -> None:
        self._buffer.losses.note(stream)
        self._buffer.count(stream, session or "", f"dropped-{kind}", 1)

    def _held(self) -> None:
        self._good += 1
        if self.store_error is not None and self._good >= _RECOVERED_BLOCKS:
            self.store_error = None
