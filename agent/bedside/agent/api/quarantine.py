"""The calls about what sources could not understand."""

from __future__ import annotations

from collections.abc import Iterable

from bedside.agent.api.messages import quarantined_message
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Quarantined
from bedside.agent.buffer.store import BufferStore
from bedside.proto.v1 import local_pb2


class QuarantineCalls:
    """Answers beside the store's one writer."""

    def __init__(self, buffer: BufferStore, reader: BufferReader) -> None:
        self._buffer = buffer
        self._reader = reader

    def rows(self, request: local_pb2.QuarantineQuery) -> local_pb2.QuarantineList:
        """What is durable of it."""
        return _listed(self._reader.quarantine(request.source, request.reason))

    def clear(self, request: local_pb2.QuarantineQuery) -> local_pb2.QuarantineList:
        """Remove rows, and return them."""
        return _listed(self._buffer.clear_quarantine(request.source, request.reason))


def _listed(rows: Iterable[Quarantined]) -> local_pb2.QuarantineList:
    return local_pb2.QuarantineList(rows=map(quarantined_message, rows))
