"""`AgentService` and `grpc.health.v1` on a unix socket whose directory only the agent's user may enter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

import grpc

from bedside.agent.api.follow import Followers
from bedside.agent.health.facts import AgentFacts, ModelFacts
from bedside.proto.v1 import local_pb2_grpc
from bedside.proto.v1.common_pb2 import Empty
from bedside.proto.v1.local_pb2 import AgentStatus, FollowRequest, ModelStatus, Prediction, StageLatency, StreamStatus
from bedside.service.health import Health
from bedside.service.link.address import parse_address
from bedside.service.link.health import HealthPublisher
from bedside.service.link.server import LinkServer

_DIRECTORY_MODE = 0o700
_SOCKET_MODE = 0o600


class StoredPredictions(Protocol):
    """Where predictions that were made earlier are read."""

    def after(self, since_id: int) -> Sequence[Prediction]:
        """The next ones above `since_id`, in order; empty at the end."""


class AgentServicer(local_pb2_grpc.AgentServiceServicer):
    """Answers from facts, the store, and what is being published."""

    def __init__(self, observe: Callable[[], AgentFacts], stored: StoredPredictions, followers: Followers) -> None:
        self._observe = observe
        self._stored = stored
        self._followers = followers

    async def Status(  # noqa: N802  # the name is the wire's
        self, request: Empty, context: grpc.aio.ServicerContext[Empty, AgentStatus]
    ) -> AgentStatus:
        """How the agent is."""
        del request, context
        return status_message(self._observe())

    async def Follow(  # noqa: N802  # the name is the wire's
        self, request: FollowRequest, context: grpc.aio.ServicerContext[FollowRequest, Prediction]
    ) -> AsyncIterator[Prediction]:
        """Earlier predictions above `since_id`, where one is given, and then each as it is made; none is left out."""
        del context
        last_id = request.since_id
        with self._followers.subscribe() as fresh:
            while last_id and (page := self._stored.after(last_id)):
                for prediction in page:
                    yield prediction
                last_id = page[-1].id
            waiting = self._followers.recent() if last_id else ()
            for prediction in waiting:
                if prediction.id > last_id:
                    last_id = prediction.id
                    yield prediction
            async for prediction in fresh:
                if prediction.id > last_id:
                    yield prediction


def status_message(facts: AgentFacts) -> AgentStatus:
    """The status as the wire has it."""
    return AgentStatus(
        version=facts.version,
        site=facts.site,
        device=facts.device,
        uptime_s=facts.uptime_s,
        components=facts.component_messages(),
        streams=[
            StreamStatus(
                stream=stream.stream,
                session_state="open" if stream.session_open else "none",
                rate_hz=stream.rate_hz,
                blocks=stream.blocks,
                records=stream.records,
                gaps=stream.gaps,
                dropped_blocks=stream.dropped_blocks,
                last_seen_age_ms=stream.last_seen_age_ms,
                quality=stream.quality.message() if stream.quality is not None else None,
            )
            for stream in facts.streams
        ],
        models=[_model_message(model) for model in facts.models],
        open_alarms=facts.open_alarms,
        predictions=facts.predictions,
        model_running=facts.model_running,
        link=facts.components["link"].sentence,
        last_task=facts.round.task,
        last_round=facts.round.round_number,
        last_round_state=facts.round.state,
        last_reason=facts.round.reason,
        rss_bytes=facts.machine.rss_bytes,
    )


def _model_message(model: ModelFacts) -> ModelStatus:
    return ModelStatus(
        name=model.name,
        digest=model.digest,
        stream=", ".join(model.streams),
        runtime=model.runtime,
        predictions=model.predictions,
        dropped_windows=model.dropped_windows,
        waiting_windows=model.waiting_windows,
        gaps=model.gaps,
        stages=[
            StageLatency(
                stage=found.stage, count=found.count, p50_us=found.p50_us, p99_us=found.p99_us, max_us=found.max_us
            )
            for found in model.latencies
        ],
        error=model.error,
    )


async def start_api(socket: Path, servicer: AgentServicer, health: Health) -> LinkServer:
    """Serve on `socket`; the caller stops the server.

    Raises:
        UnavailableError: `port-in-use`, when another agent serves this socket.
    """
    socket.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    socket.parent.chmod(_DIRECTORY_MODE)
    server = LinkServer(parse_address(f"unix:{socket}"), None)
    local_pb2_grpc.add_AgentServiceServicer_to_server(servicer, server.grpc)
    HealthPublisher(health).add_to(server.grpc)
    await server.start()
    socket.chmod(_SOCKET_MODE)
    return server
