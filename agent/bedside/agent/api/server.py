"""`AgentService` and `grpc.health.v1` on a unix socket whose directory only the agent's user may enter.

The servicer only translates: every call goes to the object of its noun, in the agent's loop, where the store's one
writer is. What they refuse reaches the caller as the error that it is (`bedside.service.link.errors`).
"""
# ruff: noqa: N802  # the names are the wire's, and so is their meaning: see local.proto

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc

from bedside.agent.api.alarms import AlarmCalls
from bedside.agent.api.exposition import exposition
from bedside.agent.api.labels import LabelCalls
from bedside.agent.api.messages import session_message
from bedside.agent.api.models import ModelCalls
from bedside.agent.api.personal import PersonalCalls
from bedside.agent.api.predictions import PredictionCalls
from bedside.agent.api.quarantine import QuarantineCalls
from bedside.agent.api.sessions import SessionCalls
from bedside.agent.api.sinks import SinkCalls
from bedside.agent.api.status import BufferGauge, status_message
from bedside.agent.health.facts import AgentFacts
from bedside.proto.v1 import local_pb2 as wire
from bedside.proto.v1 import local_pb2_grpc
from bedside.proto.v1.common_pb2 import Empty
from bedside.service.health import Health
from bedside.service.link.address import parse_address
from bedside.service.link.health import HealthPublisher
from bedside.service.link.server import LinkServer

_DIRECTORY_MODE = 0o700
_SOCKET_MODE = 0o600

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Context = grpc.aio.ServicerContext[Request, Answer]


@dataclass(frozen=True)
class Calls:
    """Who answers, by noun."""

    predictions: PredictionCalls
    sessions: SessionCalls
    labels: LabelCalls
    alarms: AlarmCalls
    quarantine: QuarantineCalls
    sinks: SinkCalls
    models: ModelCalls
    personal: PersonalCalls


class AgentServicer(local_pb2_grpc.AgentServiceServicer):
    """Every call of the service."""

    def __init__(self, observe: Callable[[], AgentFacts], gauge: BufferGauge, calls: Calls) -> None:
        self._observe = observe
        self._gauge = gauge
        self._calls = calls

    async def Status(self, _request: Empty, _context: Context[Empty, wire.AgentStatus]) -> wire.AgentStatus:
        return self._status()

    def exposition(self) -> bytes:
        """The status as Prometheus reads it; raises StoreError `store-read`."""
        return exposition(self._status())

    def _status(self) -> wire.AgentStatus:
        facts = self._observe()
        return status_message(facts, self._gauge.read(facts))

    async def Follow(
        self, request: wire.FollowRequest, _context: Context[wire.FollowRequest, wire.Prediction]
    ) -> AsyncIterator[wire.Prediction]:
        async for prediction in self._calls.predictions.follow(request):
            yield prediction

    async def Predict(
        self, request: wire.PredictRequest, _context: Context[wire.PredictRequest, wire.PredictResponse]
    ) -> wire.PredictResponse:
        return await self._calls.predictions.predict(request)

    async def Explain(
        self, request: wire.ExplainRequest, _context: Context[wire.ExplainRequest, wire.Explanation]
    ) -> wire.Explanation:
        return await self._calls.predictions.explain(request)

    async def ListSessions(
        self, request: wire.ListSessionsRequest, _context: Context[wire.ListSessionsRequest, wire.SessionList]
    ) -> wire.SessionList:
        found = self._calls.sessions.newest(request.stream, request.limit)
        return wire.SessionList(sessions=map(session_message, found))

    async def OpenSession(
        self, request: wire.OpenSessionRequest, _context: Context[wire.OpenSessionRequest, wire.Session]
    ) -> wire.Session:
        consent = request.consent_training if request.HasField("consent_training") else None
        origin = request.origin or "api"
        opened = self._calls.sessions.open(
            request.stream, consent_training=consent, origin=origin, new_stream=request.new_stream
        )
        return session_message(opened)

    async def CloseSession(
        self, request: wire.CloseSessionRequest, _context: Context[wire.CloseSessionRequest, wire.Session]
    ) -> wire.Session:
        return session_message(self._calls.sessions.close(request.stream))

    async def SetConsent(
        self, request: wire.SetConsentRequest, _context: Context[wire.SetConsentRequest, wire.Session]
    ) -> wire.Session:
        return session_message(self._calls.sessions.set_consent(request.session, training=request.consent_training))

    async def ForgetSession(
        self, request: wire.SessionRef, _context: Context[wire.SessionRef, wire.Forgotten]
    ) -> wire.Forgotten:
        return wire.Forgotten(rows=await self._calls.sessions.forget(request.session))

    async def ListLabels(
        self, request: wire.ListLabelsRequest, _context: Context[wire.ListLabelsRequest, wire.LabelList]
    ) -> wire.LabelList:
        return self._calls.labels.page(request)

    async def AddLabels(
        self, request: wire.AddLabelsRequest, _context: Context[wire.AddLabelsRequest, wire.LabelList]
    ) -> wire.LabelList:
        return self._calls.labels.add(request)

    async def WithdrawLabel(self, request: wire.LabelRef, _context: Context[wire.LabelRef, wire.Label]) -> wire.Label:
        return self._calls.labels.withdraw(request)

    async def ListAlarms(
        self, request: wire.ListAlarmsRequest, _context: Context[wire.ListAlarmsRequest, wire.AlarmList]
    ) -> wire.AlarmList:
        return self._calls.alarms.newest(request)

    async def FollowAlarms(self, _request: Empty, _context: Context[Empty, wire.Alarm]) -> AsyncIterator[wire.Alarm]:
        async for alarm in self._calls.alarms.follow():
            yield alarm

    async def AcknowledgeAlarm(
        self, request: wire.AcknowledgeAlarmRequest, _context: Context[wire.AcknowledgeAlarmRequest, wire.Alarm]
    ) -> wire.Alarm:
        return self._calls.alarms.acknowledge(request)

    async def ListQuarantine(
        self, request: wire.QuarantineQuery, _context: Context[wire.QuarantineQuery, wire.QuarantineList]
    ) -> wire.QuarantineList:
        return self._calls.quarantine.rows(request)

    async def ClearQuarantine(
        self, request: wire.QuarantineQuery, _context: Context[wire.QuarantineQuery, wire.QuarantineList]
    ) -> wire.QuarantineList:
        return self._calls.quarantine.clear(request)

    async def SendNow(
        self, request: wire.SendNowRequest, _context: Context[wire.SendNowRequest, wire.SendNowResponse]
    ) -> wire.SendNowResponse:
        return await self._calls.sinks.send_now(request)

    async def ListModelSlots(self, _request: Empty, _context: Context[Empty, wire.ModelSlotList]) -> wire.ModelSlotList:
        return self._calls.models.slots()

    async def RollBackModel(
        self, request: wire.ModelRef, _context: Context[wire.ModelRef, wire.ModelSlot]
    ) -> wire.ModelSlot:
        return await self._calls.models.roll_back(request)

    async def AcceptModel(
        self, request: wire.ModelRef, _context: Context[wire.ModelRef, wire.ModelSlot]
    ) -> wire.ModelSlot:
        return await self._calls.models.accept(request)

    async def PromoteModel(
        self, request: wire.ModelRef, _context: Context[wire.ModelRef, wire.ModelSlot]
    ) -> wire.ModelSlot:
        return await self._calls.models.promote(request)

    async def RejectModel(
        self, request: wire.ModelRef, _context: Context[wire.ModelRef, wire.ModelSlot]
    ) -> wire.ModelSlot:
        return await self._calls.models.reject(request)

    async def ListPersonal(
        self, _request: Empty, _context: Context[Empty, wire.PersonalModelList]
    ) -> wire.PersonalModelList:
        return self._calls.personal.all()

    async def MakePersonal(
        self, request: wire.ModelRef, _context: Context[wire.ModelRef, wire.PersonalModel]
    ) -> wire.PersonalModel:
        return await self._calls.personal.make(request)

    async def ResetPersonal(
        self, request: wire.ModelRef, _context: Context[wire.ModelRef, wire.PersonalModel]
    ) -> wire.PersonalModel:
        return await self._calls.personal.reset(request)


async def start_api(socket: Path, servicer: AgentServicer, health: Health) -> LinkServer:
    """Serve on `socket`; the caller stops the server.

    Raises:
        UnavailableError: `port-in-use`, when another agent serves this socket.
    """
    # One that is there stays as it is: it may be /run or /tmp, and this process root's.
    socket.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    server = LinkServer(parse_address(f"unix:{socket}"), None)
    local_pb2_grpc.add_AgentServiceServicer_to_server(servicer, server.grpc)
    HealthPublisher(health).add_to(server.grpc)
    await server.start()
    socket.chmod(_SOCKET_MODE)
    return server
