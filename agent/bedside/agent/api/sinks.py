"""The call about sinks."""

from __future__ import annotations

from typing import Protocol

from bedside.agent.api.messages import check_number
from bedside.agent.sinks.runner import Sent
from bedside.proto.v1 import local_pb2


class Sinks(Protocol):
    """The sinks of a device."""

    async def send_now(self, name: str, since_ns: int | None) -> Sent:
        """Deliver now what waits for a sink, or again what is stored from a time on.

        Raises:
            ProtocolError: `no-such-sink`.
            UnavailableError: `sink-not-running`, `sink-stalled`.
        """


class SinkCalls:
    """Answers for the sinks."""

    def __init__(self, sinks: Sinks) -> None:
        self._sinks = sinks

    async def send_now(self, request: local_pb2.SendNowRequest) -> local_pb2.SendNowResponse:
        """Deliver, and say what came of it."""
        since_ns = check_number(request.since_ns, "time") if request.HasField("since_ns") else None
        sent = await self._sinks.send_now(request.sink, since_ns)
        return local_pb2.SendNowResponse(sent=sent.sent, failed=sent.failed, error=sent.error)
