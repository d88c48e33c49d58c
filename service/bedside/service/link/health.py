"""Component health as grpc.health.v1, for probes and orchestrators on the same machine."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from bedside.service.health import Health, Level

_SERVING: Final = {
    Level.OK: health_pb2.HealthCheckResponse.SERVING,
    Level.DEGRADED: health_pb2.HealthCheckResponse.SERVING,
    Level.FAILED: health_pb2.HealthCheckResponse.NOT_SERVING,
}


class HealthPublisher:
    """Serves the components of a `Health` as services of grpc.health.v1; the empty name is the worst of them.

    Construct it inside a running event loop.
    """

    def __init__(self, components: Health) -> None:
        self._servicer = health.aio.HealthServicer()
        self._pending: set[asyncio.Task[None]] = set()
        components.subscribe(self._changed)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the service on a server that has not started."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def _changed(self, component: str, level: Level) -> None:
        task = asyncio.get_running_loop().create_task(self._servicer.set(component, _SERVING[level]))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
