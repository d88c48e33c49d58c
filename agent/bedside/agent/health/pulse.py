"""The heartbeat loop: one signed heartbeat at the pace that the coordinator asks for, through any absence of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from bedside.agent.health.facts import AgentFacts
from bedside.agent.health.heartbeat import Detail, build_heartbeat
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import BedsideError
from bedside.core.signing import sign_message
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import HeartbeatAnswer
from bedside.service.identity import Identity, SequenceNumbers
from bedside.service.link.channel import Backoff
from bedside.service.link.errors import unexpected
from bedside.service.logs import event

_LOGGER = logging.getLogger(__name__)
_SHORTEST_S: Final = 0.2
_LONGEST_S: Final = 3_600.0
_LAST_DATE_S: Final = 253_402_300_799
"""The end of the year 9999, seconds since 1970: what is later is not a time."""
_NS_PER_S: Final = 1_000_000_000


class HeartbeatLink(Protocol):
    """The call that carries a heartbeat."""

    async def heartbeat(self, signed: Signed) -> HeartbeatAnswer: ...


class Pulse:
    """Sends heartbeats until cancelled.

    Attributes:
        clock_offset_ms: the coordinator's clock minus ours; None before the first answer. Shown, never trusted.
        error: why the last heartbeat did not arrive; None when it did.
    """

    def __init__(
        self,
        identity: Identity,
        link: HeartbeatLink,
        sequence: SequenceNumbers,
        *,
        clock: Clock,
        entropy: Entropy,
        interval_s: float,
        observe: Callable[[], AgentFacts],
        detail: Callable[[], Detail],
    ) -> None:
        self._identity = identity
        self._link = link
        self._sequence = sequence
        self._clock = clock
        self._interval_s = interval_s
        self._observe = observe
        self._detail = detail
        # Never more rarely than when all is well: a fleet that comes back costs no more than it does every day.
        self._backoff = Backoff(entropy, first_s=min(1.0, interval_s), cap_s=interval_s)
        self.clock_offset_ms: int | None = None
        self.error: BedsideError | None = None

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            wait_s = await self.beat()
            await asyncio.sleep(wait_s)

    async def beat(self) -> float:
        """Send one heartbeat; returns how many seconds to wait before the next."""
        try:
            answer = await self._link.heartbeat(self._signed())
        except BedsideError as error:
            self.error = error
            event(_LOGGER, "heartbeat-waits", level=logging.DEBUG, error=error)
            return self._backoff.next_s()
        except Exception as error:
            self.error = unexpected(error)
            _LOGGER.exception("heartbeat-failed")
            return self._backoff.next_s()
        self.error = None
        self._backoff.reset()
        if answer.server_time_s <= _LAST_DATE_S:
            self.clock_offset_ms = (answer.server_time_s - self._clock.now_ns() // _NS_PER_S) * 1000
        wait_s = answer.next_call_ms / 1000 if answer.next_call_ms else self._interval_s
        return min(max(wait_s, _SHORTEST_S), _LONGEST_S)

    def _signed(self) -> Signed:
        beat = build_heartbeat(
            self._observe(),
            self._detail(),
            credential_digest=self._identity.require_credential().digest,
            sequence=self._sequence.next(),
            now_s=self._clock.now_ns() // _NS_PER_S,
        )
        return sign_message("heartbeat", beat, self._identity.signing_key)
