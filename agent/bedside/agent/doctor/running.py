"""The agent that runs, in its own words: its components, and when it last heard of its coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from bedside.agent.doctor.configuration import config_of
from bedside.core.errors import UnavailableError
from bedside.proto.v1 import device_pb2, local_pb2
from bedside.service.doctor.check import Check, Finding, Place, bad, doubtful, good
from bedside.service.doctor.unit import how_to_start
from bedside.service.output import human_duration


def _running(place: Place) -> Iterator[Finding]:
    config = config_of(place)
    if config is None:
        return
    try:
        status = asyncio.run(_ask(place))
    except UnavailableError as error:
        yield bad(error.sentence, how_to_start(place, error.remedy))
        return
    for component in status.components:
        words = f"{component.component}: {component.sentence}"
        if component.state == device_pb2.COMPONENT_STATE_FAILED:
            yield bad(words)
        elif component.state != device_pb2.COMPONENT_STATE_OK:
            yield doubtful(words)
    if all(component.state == device_pb2.COMPONENT_STATE_OK for component in status.components):
        link = f"; link: {status.link}" if config.link.enabled else ""
        yield good(f"well since {human_duration(status.uptime_s)}, {status.predictions} predictions{link}")


async def _ask(place: Place) -> local_pb2.AgentStatus:
    from bedside.agent.client import LocalAgent

    async with LocalAgent(place.directory) as agent:
        return await agent.status()


RUNNING: Final = Check(
    "agent",
    "that it answers, each of its components, and its contact with the coordinator",
    "bedside agent status DIRECTORY; journalctl -u bedside-agent",
    _running,
)
