"""`bedside fleet`: how every device is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from google.protobuf.json_format import MessageToDict

from bedside.coordinator.cli.link import ask, socket_option
from bedside.proto.v1.common_pb2 import Empty
from bedside.proto.v1.device_pb2 import ComponentHealth, ComponentState
from bedside.proto.v1.operator_pb2 import DeviceEntry, DeviceList, FleetSummary
from bedside.service.output import Table, emit, human_age, human_bytes, json_option
from bedside.service.platform import SystemClock

if TYPE_CHECKING:
    from bedside.proto.v1.operator_pb2_grpc import OperatorServiceAsyncStub

_NS_PER_S = 1_000_000_000


@click.group()
def fleet() -> None:
    """See how every device is doing."""


@fleet.command()
@socket_option
@json_option
def status(socket: str, as_json: bool) -> None:
    """Show the sites: devices, who is online, trustees, rosters."""

    async def look(stub: OperatorServiceAsyncStub) -> FleetSummary:
        return await stub.FleetStatus(Empty())

    summary = ask(socket, look)
    sites = [
        {
            "site": site.site,
            "devices": site.devices,
            "online": site.online,
            "degraded": site.degraded,
            "trustee_online": site.trustee_online,
            "roster_version": site.roster_version,
        }
        for site in summary.sites
    ]
    data = {"sites": sites, "pending_requests": summary.pending_requests, "server_time_s": summary.server_time_s}
    rows = [
        [s.site, str(s.devices), str(s.online), str(s.degraded), "online" if s.trustee_online else "away",
         str(s.roster_version)]
        for s in summary.sites
    ]  # fmt: skip
    columns = ["site", "devices", "online", "degraded", "trustee", "roster"]
    title = f"{summary.pending_requests} requests wait for their sites" if summary.pending_requests else ""
    emit(data, as_json, table=Table(columns, rows, title=title, right=frozenset(columns[1:4])))


@fleet.command()
@socket_option
@json_option
def devices(socket: str, as_json: bool) -> None:
    """List every device with its last words."""

    async def look(stub: OperatorServiceAsyncStub) -> DeviceList:
        return await stub.ListDevices(Empty())

    entries = ask(socket, look).devices
    now_ns = SystemClock().now_ns()
    rows = [_row(entry, now_ns) for entry in entries]
    columns = ["site", "device", "id", "state", "last seen", "version", "health", "buffer", "last round"]
    data = [MessageToDict(entry, preserving_proto_field_name=True) for entry in entries]
    emit(data, as_json, table=Table(columns, rows, empty="no device has enrolled yet"))


def unwell(part: ComponentHealth) -> str:
    """`link degraded: not enrolled`; a device that tells the minimum about itself gives no sentence."""
    state = ComponentState.Name(part.state).removeprefix("COMPONENT_STATE_").lower()
    return f"{part.component} {state}" + (f": {part.sentence}" if part.sentence else "")


def _row(entry: DeviceEntry, now_ns: int) -> list[str]:
    beat = entry.heartbeat
    seen = human_age(entry.last_seen_s * _NS_PER_S if entry.last_seen_s else None, now_ns)
    worst = [part for part in beat.components if part.state != ComponentState.COMPONENT_STATE_OK]
    health = "; ".join(unwell(part) for part in worst) or ("ok" if entry.last_seen_s else "")
    last = f"{beat.last_task} {beat.last_round}" if beat.last_task else ""
    reason = f"{last} not joined: {beat.last_refusal}" if beat.last_refusal else last
    size = human_bytes(beat.buffer_bytes) if entry.last_seen_s else ""
    return [entry.site, entry.label, entry.id, entry.state, seen, beat.agent_version, health, size, reason]
