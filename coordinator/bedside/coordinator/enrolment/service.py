"""The enrolment port: gRPC around the desk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from bedside.coordinator.calls import Context
from bedside.coordinator.enrolment.desk import EnrolmentDesk
from bedside.coordinator.enrolment.registry import Registry
from bedside.coordinator.signals import Signals
from bedside.core.clock import Clock
from bedside.proto.v1.common_pb2 import Empty, Signed
from bedside.proto.v1.enrolment_pb2 import (
    EnrolRequest,
    FederationBundle,
    IssuedCertificate,
    RequestPhase,
    RequestQuery,
    RequestState,
)
from bedside.proto.v1.enrolment_pb2_grpc import EnrolmentServiceServicer
from bedside.service.logs import event

_LOGGER: Final = logging.getLogger(__name__)
_NS_PER_S: Final = 1_000_000_000
DECISION_WAIT_S: Final = 2.0
"""How long a question about a pending request is held: a site's desk usually answers within it."""


class EnrolmentService(EnrolmentServiceServicer):
    """Calls of machines that have no certificate yet, or an old one."""

    def __init__(
        self,
        desk: EnrolmentDesk,
        registry: Registry,
        signals: Signals,
        ca_pem: bytes,
        service_address: Callable[[], str],
        clock: Clock,
    ) -> None:
        self._desk = desk
        self._registry = registry
        self._signals = signals
        self._ca_pem = ca_pem
        self._service_address = service_address
        self._clock = clock

    async def GetFederation(self, request: Empty, context: Context) -> FederationBundle:  # noqa: N802
        """Answer with what a new machine compares with its pins."""
        return FederationBundle(
            federation=self._registry.signed_federation,
            ca_pem=self._ca_pem,
            service_address=self._service_address(),
            server_time_s=self._clock.now_ns() // _NS_PER_S,
        )

    async def RequestCredential(self, request: EnrolRequest, context: Context) -> RequestState:  # noqa: N802
        """Take a request; answers when the site decided, or after a moment as pending."""
        seen = self._signals.requests.version
        state = self._desk.request(request)
        event(_LOGGER, "credential-requested", digest=state.request_digest, approval=state.needs_approval)
        self._signals.work.bump()
        return await self._settled(state, seen)

    async def GetRequestState(self, request: RequestQuery, context: Context) -> RequestState:  # noqa: N802
        """Say how a request stands; waits a moment while it is pending."""
        seen = self._signals.requests.version
        return await self._settled(self._desk.state(request.request_digest), seen)

    async def PublishRoster(self, request: Signed, context: Context) -> Empty:  # noqa: N802
        """Take a site's newer roster."""
        roster = self._registry.publish(request)
        event(_LOGGER, "roster-published", site=roster.site, version=roster.version)
        for signal in (self._signals.requests, self._signals.offers, self._signals.work, self._signals.rounds):
            signal.bump()
        return Empty()

    async def IssueCertificate(self, request: Signed, context: Context) -> IssuedCertificate:  # noqa: N802
        """Issue the first certificate, or the next one."""
        issued = self._desk.issue(request)
        event(_LOGGER, "certificate-issued", not_after_s=issued.not_after_s)
        return issued

    async def _settled(self, state: RequestState, seen: int) -> RequestState:
        """The state once the site has decided, or as it is after a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DECISION_WAIT_S):
                while state.phase == RequestPhase.REQUEST_PHASE_PENDING:
                    seen = await self._signals.requests.wait(seen, DECISION_WAIT_S)
                    state = self._desk.state(state.request_digest)
        return state
