"""The heartbeat: what leaves the device about itself, in steps coarse enough not to tell who lies in which bed.

Sensor activity shows bed occupancy, so that ages and sizes go out in steps, and with `minimal` nothing but versions,
uptime and component states goes out at all. Sentences are those that belong to a component or a code; what this device
found out itself is for its own users.

Source: DESIGN section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from bedside.agent.health.facts import AgentFacts, SourceFacts
from bedside.agent.rounds.told import told_as, told_code, told_fault, told_wait
from bedside.core.signing.envelope import SUITE
from bedside.proto.v1.device_pb2 import COMPONENT_STATE_OK, ComponentHealth, Heartbeat, StreamHealth

Detail = Literal["minimal", "standard"]

_AGE_STEPS_S: Final = (10, 60, 600, 3_600, 86_400)
"""Ages are told as the smallest of these that they do not exceed, or in whole days."""
_PPM: Final = 1_000_000
_SIZE_STEP_BYTES: Final = 1 << 20
_MINIMAL_UPTIME_STEP_S: Final = 3_600


def stricter(one: str, other: str) -> Detail:
    """The detail that both the device's configuration and its site's policy allow."""
    return "minimal" if "minimal" in (one, other) else "standard"


def age_step_s(age_s: float) -> int:
    """An age rounded up to a coarse step, seconds."""
    for step_s in _AGE_STEPS_S:
        if age_s <= step_s:
            return step_s
    day_s = _AGE_STEPS_S[-1]
    return -int(-age_s // day_s) * day_s


def error_step_ppm(sources: Sequence[SourceFacts], stream: str) -> int:
    """What failed of what the sources of a stream heard, per million, rounded up to a power of ten; 0 for nothing."""
    ours = [source for source in sources if stream in source.streams]
    failed = sum(source.unmapped + source.dropped for source in ours)
    heard = sum(source.blocks + source.values for source in ours) + failed
    step_ppm = 1
    while failed and step_ppm * heard < failed * _PPM:
        step_ppm *= 10
    return step_ppm if failed else 0


def build_heartbeat(
    facts: AgentFacts, detail: Detail, *, credential_digest: bytes, sequence: int, now_s: int
) -> Heartbeat:
    """Make the heartbeat that `detail` allows, ready to be signed."""
    minimal = detail == "minimal"
    beat = Heartbeat(
        suite=SUITE,
        credential_digest=credential_digest,
        sequence=sequence,
        sent_at_s=now_s,
        agent_version=facts.version,
        uptime_s=_floor(facts.uptime_s, _MINIMAL_UPTIME_STEP_S) if minimal else facts.uptime_s,
        components=_components(facts, minimal=minimal),
    )
    if not minimal:
        _add_standard(beat, facts)
    return beat


def _components(facts: AgentFacts, *, minimal: bool) -> list[ComponentHealth]:
    return [
        ComponentHealth(
            component=found.component,
            state=found.state,
            sentence="" if minimal else _told(found, facts),
        )
        for found in facts.component_messages()
    ]


def _told(found: ComponentHealth, facts: AgentFacts) -> str:
    if found.state != COMPONENT_STATE_OK:
        return told_fault(found.component)
    return told_wait(facts.training_waits) if found.component == "trainer" else ""


def _add_standard(beat: Heartbeat, facts: AgentFacts) -> None:
    machine = facts.machine
    beat.os_version = machine.os_version
    beat.model_running = facts.model_running
    beat.model_wanted = facts.model_wanted
    beat.config_digest = facts.config_digest
    beat.restarts = facts.restarts
    beat.last_exit_reason = facts.last_exit
    beat.buffer_bytes = _floor(facts.buffer_bytes, _SIZE_STEP_BYTES)
    beat.buffer_oldest_age_s = age_step_s(facts.buffer_oldest_age_s) if facts.buffer_oldest_age_s else 0
    beat.disk_free_bytes = _floor(machine.disk_free_bytes, _SIZE_STEP_BYTES)
    beat.rss_bytes = machine.rss_bytes
    beat.last_task = facts.round.task
    beat.last_round = facts.round.round_number
    code = "" if facts.round.joined else facts.round.code
    beat.last_refusal = f"{told_code(code)} [{told_as(code)}]" if code else ""
    beat.key_age_s = facts.key_age_s
    if machine.temperature_mc is not None:
        beat.temperature_mc = machine.temperature_mc
    if machine.kernel.throttled is not None:
        beat.throttled = machine.kernel.throttled
    if machine.kernel.undervoltage is not None:
        beat.undervoltage = machine.kernel.undervoltage
    if machine.kernel.battery_share is not None:
        beat.battery_percent = round(100 * machine.kernel.battery_share)
    if facts.clock_offset_ms is not None:
        beat.clock_offset_ms = facts.clock_offset_ms
    if facts.last_prediction_age_ms is not None:
        beat.last_prediction_age_ms = age_step_s(facts.last_prediction_age_ms / 1000) * 1000
    beat.streams.extend(
        StreamHealth(
            stream=stream.stream,
            last_seen_age_ms=age_step_s(stream.last_seen_age_ms / 1000) * 1000,
            error_ppm=error_step_ppm(facts.sources, stream.stream),
            dropped_blocks=stream.dropped_blocks,
        )
        for stream in facts.streams
    )


def _floor(value: int, step: int) -> int:
    return value // step * step
