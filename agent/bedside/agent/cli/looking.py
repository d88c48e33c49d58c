"""The commands that look at a device: status, health, predictions, streams, session list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import click
import grpc

from bedside.agent.cli.setting_up import DIRECTORY
from bedside.agent.config import BUFFER_NAME, AgentConfig, load_agent_config
from bedside.core.errors import BedsideError, UnavailableError
from bedside.proto.v1 import device_pb2, local_pb2
from bedside.proto.v1.common_pb2 import Empty
from bedside.proto.v1.identity_pb2 import Role
from bedside.proto.v1.local_pb2_grpc import AgentServiceStub
from bedside.service.identity import DIRECTORY_NAME, find_identity
from bedside.service.output import Table, emit, emit_line, human_age, human_bytes, human_duration, json_option
from bedside.service.platform import SystemClock

_CALL_TIMEOUT_S = 5.0
_NOT_RUNNING = "start it: `bedside agent run`, or systemctl start bedside-agent"
_LEVELS = {
    device_pb2.COMPONENT_STATE_OK: (0, "ok"),
    device_pb2.COMPONENT_STATE_DEGRADED: (1, "degraded"),
    device_pb2.COMPONENT_STATE_FAILED: (2, "failed"),
}
_NS_PER_MS = 1_000_000


@click.command()
@click.argument("directory", type=DIRECTORY)
@json_option
def status(directory: Path, as_json: bool) -> None:
    """Show what the running agent of DIRECTORY does: components, model, link, newest round."""
    answer = _ask_status(directory)
    emit(_status_fields(answer), as_json)


@click.command()
@click.argument("directory", type=DIRECTORY)
@json_option
@click.pass_context
def health(context: click.Context, directory: Path, as_json: bool) -> None:
    """Say in one line how the agent of DIRECTORY is; exits 0 (well), 1 (degraded) or 2 (failed, or not running)."""
    try:
        answer = _ask_status(directory)
    except UnavailableError as error:
        emit_line(
            {"state": "failed", "sentence": error.sentence, "components": {}}, as_json, f"FAILED {error.sentence}"
        )
        context.exit(2)
    worst = max(answer.components, key=lambda component: _LEVELS[component.state][0])
    code, word = _LEVELS[worst.state]
    unwell = [f"{c.component}: {c.sentence}" for c in answer.components if _LEVELS[c.state][0]]
    text = "; ".join(unwell) or f"{len(answer.streams)} streams, {answer.predictions} predictions"
    components = {c.component: {"state": _LEVELS[c.state][1], "sentence": c.sentence} for c in answer.components}
    emit_line({"state": word, "sentence": text, "components": components}, as_json, f"{word.upper()} {text}")
    context.exit(code)


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 100_000), help="Newest to show.")
@click.option("--follow", is_flag=True, help="Go on with each prediction as it is made, until interrupted.")
@json_option
def predictions(directory: Path, limit: int, follow: bool, as_json: bool) -> None:
    """Show the newest predictions of DIRECTORY, from its database; the agent need not run, except for --follow."""
    config = load_agent_config(directory)
    stored = _stored(config, limit)
    if follow:
        for prediction in stored:
            _print_prediction(prediction, as_json)
        asyncio.run(_follow(config, stored[-1].id if stored else 0, as_json))
        return
    now_ns = SystemClock().now_ns()
    rows = [(str(p.id), p.stream, human_age(p.end_ns, now_ns), p.label, f"{p.confidence_e6 / 1e6:.2f}") for p in stored]
    table = Table(("ID", "STREAM", "AGE", "LABEL", "CONFIDENCE"), rows, empty="no predictions yet")
    emit([_prediction_fields(p) for p in stored], as_json, table=table)


@click.command()
@click.argument("directory", type=DIRECTORY)
@json_option
def streams(directory: Path, as_json: bool) -> None:
    """Show the streams that the running agent of DIRECTORY reads."""
    answer = _ask_status(directory)
    found = [_stream_fields(stream) for stream in answer.streams]
    rows = [tuple(str(value) for value in stream.values()) for stream in found]
    columns = ("STREAM", "SESSION", "RATE HZ", "BLOCKS", "GAPS", "DROPPED", "LAST SEEN MS")
    emit(found, as_json, table=Table(columns, rows, empty="nothing has arrived yet"))


@click.group("session")
def sessions() -> None:
    """Look at the sessions of a device: the times in which a stream belongs to one person."""


@sessions.command("list")
@click.argument("directory", type=DIRECTORY)
@json_option
def list_sessions(directory: Path, as_json: bool) -> None:
    """List the sessions in DIRECTORY's database. Their ids are random and never leave the device."""
    from bedside.agent.buffer.keys import load_key_ring
    from bedside.agent.buffer.reader import BufferReader

    config = load_agent_config(directory)
    now_ns = SystemClock().now_ns()
    with closing(BufferReader(_buffer_file(config), load_key_ring(_identity(config)))) as reader:
        found = reader.sessions()
    rows = [
        (s.session, s.stream, human_age(s.opened_ns, now_ns), "open" if s.closed_ns is None else "closed", s.origin)
        for s in found
    ]
    fields = [
        {
            "session": s.session,
            "stream": s.stream,
            "opened_ms": s.opened_ns // _NS_PER_MS,
            "closed_ms": None if s.closed_ns is None else s.closed_ns // _NS_PER_MS,
            "consent_training": s.consent_training,
            "origin": s.origin,
        }
        for s in found
    ]
    emit(
        fields, as_json, table=Table(("SESSION", "STREAM", "OPENED", "STATE", "ORIGIN"), rows, empty="no sessions yet")
    )


def _ask_status(directory: Path) -> local_pb2.AgentStatus:
    """Ask the running agent how it is.

    Raises:
        UnavailableError: `agent-not-running`.
    """
    config = load_agent_config(directory)

    async def talk() -> local_pb2.AgentStatus:
        async with _connected(config) as channel:
            return await AgentServiceStub(channel).Status(Empty(), timeout=_CALL_TIMEOUT_S)

    return asyncio.run(talk())


@asynccontextmanager
async def _connected(config: AgentConfig) -> AsyncIterator[grpc.aio.Channel]:
    from bedside.service.link.address import parse_address
    from bedside.service.link.channel import open_channel
    from bedside.service.link.errors import remote_errors

    socket = config.api.socket
    if not socket.is_socket():
        raise UnavailableError("agent-not-running", f"no agent serves {socket}", remedy=_NOT_RUNNING)
    channel = open_channel(parse_address(f"unix:{socket}"), None)
    try:
        with remote_errors("the agent"):
            yield channel
    except BedsideError as error:
        if isinstance(error, UnavailableError):
            raise UnavailableError("agent-not-running", f"no agent serves {socket}", remedy=_NOT_RUNNING) from error
        raise
    finally:
        await channel.close()


async def _follow(config: AgentConfig, since_id: int, as_json: bool) -> None:
    async with _connected(config) as channel:
        async for prediction in AgentServiceStub(channel).Follow(local_pb2.FollowRequest(since_id=since_id)):
            _print_prediction(prediction, as_json)


def _stored(config: AgentConfig, limit: int) -> list[local_pb2.Prediction]:
    from bedside.agent.buffer.keys import load_key_ring
    from bedside.agent.buffer.reader import BufferReader
    from bedside.agent.pipeline import prediction_messages

    with closing(BufferReader(_buffer_file(config), load_key_ring(_identity(config)))) as reader:
        last = reader.last_prediction()
        return prediction_messages(reader.predictions(max(0, last.number - limit), limit)) if last is not None else []


def _buffer_file(config: AgentConfig) -> Path:
    """The database. Raises UnavailableError `nothing-stored` before the first run."""
    path = config.state_dir / BUFFER_NAME
    if not path.exists():
        raise UnavailableError(
            "nothing-stored", "this agent has not run yet, so that nothing is stored", remedy="bedside agent run DIR"
        )
    return path


def _identity(config: AgentConfig) -> Path:
    return find_identity(config.state_dir / DIRECTORY_NAME, Role.ROLE_DEVICE).directory


def _print_prediction(prediction: local_pb2.Prediction, as_json: bool) -> None:
    text = f"{prediction.id}  {prediction.stream}  {prediction.label}  {prediction.confidence_e6 / 1e6:.2f}"
    emit_line(_prediction_fields(prediction), as_json, text)


def _prediction_fields(prediction: local_pb2.Prediction) -> dict[str, object]:
    return {
        "id": prediction.id,
        "stream": prediction.stream,
        "start_ns": prediction.start_ns,
        "end_ns": prediction.end_ns,
        "label": prediction.label,
        "confidence": prediction.confidence_e6 / 1e6,
        "model": prediction.model_digest.hex(),
        "latency_us": prediction.latency_us,
    }


def _stream_fields(stream: local_pb2.StreamStatus) -> dict[str, object]:
    return {
        "stream": stream.stream,
        "session": stream.session_state,
        "rate_hz": round(stream.rate_hz, 3),
        "blocks": stream.blocks,
        "gaps": stream.gaps,
        "dropped_blocks": stream.dropped_blocks,
        "last_seen_age_ms": stream.last_seen_age_ms,
    }


def _status_fields(answer: local_pb2.AgentStatus) -> dict[str, object]:
    """Flat, so that it reads as lines and as JSON."""
    fields: dict[str, object] = {
        "version": answer.version,
        "site": answer.site or "not enrolled",
        "device": answer.device,
        "uptime": human_duration(answer.uptime_s),
        "memory": human_bytes(answer.rss_bytes),
    }
    for component in answer.components:
        fields[component.component] = f"{_LEVELS[component.state][1]}: {component.sentence}"
    fields |= {
        "streams": len(answer.streams),
        "predictions": answer.predictions,
        "model": answer.model_running.hex()[:16] or "none",
    }
    if answer.last_round_state:
        reason = f" ({answer.last_reason})" if answer.last_reason else ""
        fields["round"] = f"{answer.last_task} {answer.last_round}: {answer.last_round_state}{reason}"
    return fields
