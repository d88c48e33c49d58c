"""The commands that ask the running agent how it is: status, health, streams, models."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from bedside.agent.cli.reach import DIRECTORY, ask
from bedside.agent.cli.sink_words import sink_fields, sink_words
from bedside.agent.cli.source_words import source_fields, state_words
from bedside.agent.training.gates import WAITING
from bedside.core.errors import UnavailableError
from bedside.proto.v1 import device_pb2, local_pb2
from bedside.service.options import FiniteRange
from bedside.service.output import Table, emit, emit_line, human_bytes, human_duration, json_option

_LOOK_S: Final = 0.2
_LEVELS = {
    device_pb2.COMPONENT_STATE_OK: (0, "ok"),
    device_pb2.COMPONENT_STATE_DEGRADED: (1, "degraded"),
    device_pb2.COMPONENT_STATE_FAILED: (2, "failed"),
}


@click.command()
@click.argument("directory", type=DIRECTORY)
@json_option
def status(directory: Path, as_json: bool) -> None:
    """Show what the running agent of DIRECTORY does: components, models, buffer, alarms, link, newest round."""
    answer = ask_status(directory)
    emit(status_fields(answer) if as_json else _status_lines(answer), as_json)


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--wait",
    "wait_s",
    type=FiniteRange(0),
    default=0.0,
    show_default=True,
    help="Seconds to wait until it answers, is well and, where a model serves, has decided.",
)
@json_option
@click.pass_context
def health(context: click.Context, directory: Path, wait_s: float, as_json: bool) -> None:
    """Say in one line how the agent of DIRECTORY is; exits 0 (well), 1 (degraded) or 2 (failed, or not running)."""
    try:
        answer = await_status(directory, wait_s)
    except UnavailableError as error:
        emit_line(
            {"state": "failed", "sentence": error.sentence, "components": {}}, as_json, f"FAILED {error.sentence}"
        )
        context.exit(2)
    code, word, text = health_words(answer)
    components = component_fields(answer)
    emit_line({"state": word, "sentence": text, "components": components}, as_json, f"{word.upper()} {text}")
    context.exit(code)


@click.command()
@click.argument("directory", type=DIRECTORY)
@json_option
def streams(directory: Path, as_json: bool) -> None:
    """Show the streams that the running agent of DIRECTORY reads, and how good their signal is.

    The shares (missing, flat, saturated, out of range) are of the last minutes. Drift is the population stability index
    against what the model was made from, of the channel that moved most: below 0.1 is the same, above 0.25 is another
    population.
    """
    answer = ask_status(directory)
    found = [stream_fields(stream) for stream in answer.streams]
    rows = [
        (
            stream.stream,
            stream.session_state,
            f"{stream.rate_hz:g}",
            str(stream.blocks),
            str(stream.records),
            str(stream.gaps),
            str(stream.dropped_blocks),
            human_duration(stream.last_seen_age_ms / 1000),
            quality_words(stream.quality),
        )
        for stream in answer.streams
    ]
    columns = ("STREAM", "SESSION", "RATE HZ", "BLOCKS", "RECORDS", "GAPS", "DROPPED", "LAST SEEN", "QUALITY")
    right = frozenset({"RATE HZ", "BLOCKS", "RECORDS", "GAPS", "DROPPED", "LAST SEEN"})
    emit(found, as_json, table=Table(columns, rows, right=right, empty="nothing has arrived yet"))


@click.command()
@click.argument("directory", type=DIRECTORY)
@json_option
def models(directory: Path, as_json: bool) -> None:
    """Show the models that the running agent of DIRECTORY serves: what each reads, and how quick it is.

    DECIDE is the time from the arrival of the sample that closes a window to its decision.
    """
    answer = ask_status(directory)
    rows = [
        (
            model.name,
            model.digest.hex()[:12],
            model.stream,
            model.runtime,
            str(model.predictions),
            str(model.dropped_windows),
            stage_words(model, "infer"),
            stage_words(model, "decide"),
            model.error or prospect_words(model) or "serves",
        )
        for model in answer.models
    ]
    columns = ("MODEL", "DIGEST", "STREAM", "RUNTIME", "PREDICTIONS", "DROPPED", "INFER", "DECIDE p50/p99", "STATE")
    right = frozenset({"PREDICTIONS", "DROPPED", "INFER", "DECIDE p50/p99"})
    empty = "no model serves yet: name one in agent.toml, or wait for the first plan"
    emit(
        [model_fields(model) for model in answer.models], as_json, table=Table(columns, rows, right=right, empty=empty)
    )


def ask_status(directory: Path) -> local_pb2.AgentStatus:
    """Ask the running agent how it is.

    Raises:
        UnavailableError: `agent-not-running`.
    """
    return ask(directory, lambda agent: agent.status())


def health_words(answer: local_pb2.AgentStatus) -> tuple[int, str, str]:
    """How an agent is: the exit status of monitoring, a word, and a sentence."""
    worst = max(answer.components, key=lambda component: _LEVELS[component.state][0])
    code, word = _LEVELS[worst.state]
    unwell = [f"{c.component}: {c.sentence}" for c in answer.components if _LEVELS[c.state][0]]
    return code, word, "; ".join(unwell) or _well_words(answer)


def await_answer(directory: Path, answer_s: float, well_s: float) -> local_pb2.AgentStatus:
    """Ask until the agent answers, for `answer_s` seconds at most, and then until it is well, for `well_s` at most.

    Raises:
        UnavailableError: `agent-not-running`.
    """
    ends_s = time.monotonic() + answer_s
    while time.monotonic() < ends_s:
        with suppress(UnavailableError):
            ask_status(directory)
            return await_status(directory, well_s)
        time.sleep(_LOOK_S)
    return ask_status(directory)


def await_status(directory: Path, wait_s: float) -> local_pb2.AgentStatus:
    """Ask until the agent is well and at work, for so long at most; then as `ask_status`."""
    ends_s = time.monotonic() + wait_s
    while time.monotonic() < ends_s:
        with suppress(UnavailableError):
            answer = ask_status(directory)
            well = all(component.state == device_pb2.COMPONENT_STATE_OK for component in answer.components)
            if well and (answer.HasField("last_prediction_age_ms") or not answer.models):  # since it was started
                return answer
        time.sleep(_LOOK_S)
    return ask_status(directory)


def component_fields(answer: local_pb2.AgentStatus) -> dict[str, dict[str, str]]:
    """Every component's state and sentence."""
    return {c.component: {"state": _LEVELS[c.state][1], "sentence": c.sentence} for c in answer.components}


def quality_words(quality: local_pb2.StreamQuality) -> str:
    """What is wrong with a signal, in a few words."""
    shares = {
        "missing": quality.missing_e6,
        "flat": quality.flat_e6,
        "saturated": quality.saturated_e6,
        "out of range": quality.out_of_range_e6,
    }
    words = [f"{share / 1e4:.1f} % {what}" for what, share in shares.items() if share >= 500]
    if quality.HasField("drift_psi_e3"):
        words.append(f"drift {quality.drift_psi_e3 / 1e3:.2f}")
    return ", ".join(words) or "good"


def stage_words(model: local_pb2.ModelStatus, stage: str) -> str:
    """Median and 99th percentile of a stage."""
    for found in model.stages:
        if found.stage == stage and found.count:
            return f"{found.p50_us / 1e3:.2f}/{found.p99_us / 1e3:.2f} ms"
    return "-"


def prospect_words(model: local_pb2.ModelStatus) -> str:
    """What may come to serve in a model's place, in a few words; empty where nothing may."""
    if not model.candidate:
        return "serves on: look at its last decision" if model.concern else ""
    doing = {"gate": "is judged", "shadow": "runs in the shadow", "held": "waits for your word"}
    return f"serves; {model.candidate.hex()[:8]} {doing.get(model.stage, model.stage)}"


def stream_fields(stream: local_pb2.StreamStatus) -> dict[str, object]:
    """A stream for programs."""
    quality = stream.quality
    return {
        "stream": stream.stream,
        "session": stream.session_state,
        "rate_hz": round(stream.rate_hz, 3),
        "blocks": stream.blocks,
        "records": stream.records,
        "gaps": stream.gaps,
        "dropped_blocks": stream.dropped_blocks,
        "last_seen_age_ms": stream.last_seen_age_ms,
        "quality": {
            "missing": quality.missing_e6 / 1e6,
            "flat": quality.flat_e6 / 1e6,
            "saturated": quality.saturated_e6 / 1e6,
            "out_of_range": quality.out_of_range_e6 / 1e6,
            "drift_psi": quality.drift_psi_e3 / 1e3 if quality.HasField("drift_psi_e3") else None,
        },
    }


def model_fields(model: local_pb2.ModelStatus) -> dict[str, object]:
    """A model for programs."""
    return {
        "model": model.name,
        "digest": model.digest.hex(),
        "stream": model.stream,
        "runtime": model.runtime,
        "predictions": model.predictions,
        "dropped_windows": model.dropped_windows,
        "waiting_windows": model.waiting_windows,
        "gaps": model.gaps,
        "latency_us": {
            stage.stage: {"count": stage.count, "p50": stage.p50_us, "p99": stage.p99_us, "max": stage.max_us}
            for stage in model.stages
        },
        "error": model.error,
        "previous": model.previous.hex(),
        "candidate": model.candidate.hex(),
        "stage": model.stage,
        "concern": model.concern,
    }


def status_fields(answer: local_pb2.AgentStatus) -> dict[str, object]:
    """The status for programs: the lines that people see, and numbers beside them."""
    return _status_lines(answer) | {
        "components": component_fields(answer),
        "uptime_s": answer.uptime_s,
        "rss_bytes": answer.rss_bytes,
        "sources": [source_fields(source) for source in answer.sources],
        "sinks": [sink_fields(sink) for sink in answer.sinks],
        "models": [model_fields(model) for model in answer.models],
        "buffer_status": {
            "bytes": answer.buffer.bytes,
            "cap_bytes": answer.buffer.cap_bytes,
            "file_bytes": answer.buffer.file_bytes,
            "oldest_age_s": answer.buffer.oldest_age_s,
            "evicted_parts": answer.buffer.evicted_parts,
            "dropped_parts": answer.buffer.dropped_parts,
            "written_bytes": answer.buffer.written_bytes,
        },
        "open_alarms": answer.open_alarms,
        "raised_alarms": answer.raised_alarms,
        "last_prediction_age_ms": answer.last_prediction_age_ms if answer.HasField("last_prediction_age_ms") else None,
    }


def _status_lines(answer: local_pb2.AgentStatus) -> dict[str, object]:
    """Flat, so that it reads as lines."""
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
        "sources": ", ".join(f"{one.name} ({one.kind}, {state_words(one)})" for one in answer.sources) or "none",
        "sinks": ", ".join(f"{one.name} ({one.kind}, {sink_words(one)})" for one in answer.sinks) or "none",
        "streams": len(answer.streams),
        "predictions": answer.predictions,
        "model": answer.model_running.hex()[:16] or "none",
        "models served": ", ".join(f"{m.name} ({m.error or m.runtime})" for m in answer.models) or "none",
        "stored": _stored_words(answer.buffer),
        "alarms": _alarm_words(answer),
    }
    if answer.last_round_state:
        reason = f" ({answer.last_reason})" if answer.last_reason else ""
        fields["round"] = f"{answer.last_task} {answer.last_round}: {answer.last_round_state}{reason}"
    return fields


def _well_words(answer: local_pb2.AgentStatus) -> str:
    """What a device that is well has done since it was started."""
    streams = "1 stream" if len(answer.streams) == 1 else f"{len(answer.streams)} streams"
    waits = "".join(
        f"; {one.component} {one.sentence}" for one in answer.components if one.sentence.startswith(WAITING)
    )
    if not answer.HasField("last_prediction_age_ms"):
        return f"{streams}, no prediction since the start{waits}"
    made = sum(model.predictions for model in answer.models)
    ago = human_duration(answer.last_prediction_age_ms / 1000)
    return f"{streams}, {made} predictions, the last {ago} ago{waits}"


def _alarm_words(answer: local_pb2.AgentStatus) -> str:
    cleared = answer.open_alarms - answer.raised_alarms
    parts = [(answer.raised_alarms, "raised"), (cleared, "cleared and not seen")]
    return ", ".join(f"{count} {what}" for count, what in parts if count) or "none open"


def _stored_words(buffer: local_pb2.BufferStatus) -> str:
    oldest = f", the oldest {human_duration(buffer.oldest_age_s)} old" if buffer.oldest_age_s else ""
    return f"{human_bytes(buffer.bytes)} of {human_bytes(buffer.cap_bytes)}{oldest}"
