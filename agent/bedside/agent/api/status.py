"""The status of an agent as the local API has it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.health.facts import AgentFacts, ModelFacts, SinkFacts, SourceFacts
from bedside.proto.v1.local_pb2 import (
    AgentStatus,
    BufferStatus,
    ModelStatus,
    SinkStatus,
    SourceStatus,
    StageLatency,
    StreamStatus,
)


class BufferGauge:
    """Reads how full the buffer is, and what it costs the disk."""

    def __init__(self, path: Path, reader: BufferReader, cap_bytes: int) -> None:
        self._files = [path, path.with_name(f"{path.name}-wal")]
        self._reader = reader
        self._cap_bytes = cap_bytes

    def read(self, facts: AgentFacts) -> BufferStatus:
        """A reading, as the wire has it.

        Raises:
            StoreError: `store-read`.
        """
        counters = self._reader.counters()
        return BufferStatus(
            bytes=facts.buffer_bytes,
            cap_bytes=self._cap_bytes,
            file_bytes=sum(_size(path) for path in self._files),
            oldest_age_s=facts.buffer_oldest_age_s,
            evicted_parts=counters.get("evicted-parts", 0),
            dropped_parts=counters.get("dropped-parts", 0),
            written_bytes=_written_bytes(),
        )


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _written_bytes() -> int:
    """What this process has sent to its disks, whole pages with what the file system adds; 0 where nobody counts."""
    import psutil

    with suppress(psutil.Error, AttributeError, OSError):
        return psutil.Process().io_counters().write_bytes
    return 0


def status_message(facts: AgentFacts, buffer: BufferStatus) -> AgentStatus:
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
        sources=[_source_message(source) for source in facts.sources],
        sinks=[_sink_message(sink) for sink in facts.sinks],
        models=[_model_message(model) for model in facts.models],
        buffer=buffer,
        open_alarms=facts.open_alarms,
        raised_alarms=facts.raised_alarms,
        last_prediction_age_ms=facts.last_prediction_age_ms,
        predictions=facts.predictions,
        model_running=facts.model_running,
        link=facts.components["link"].sentence,
        last_task=facts.round.task,
        last_round=facts.round.round_number,
        last_round_state=facts.round.state,
        last_reason=facts.round.reason,
        rss_bytes=facts.machine.rss_bytes,
    )


def _source_message(source: SourceFacts) -> SourceStatus:
    return SourceStatus(
        name=source.name,
        kind=source.kind,
        state=source.state,
        connected=source.connected,
        detail=source.detail,
        last_seen_age_ms=source.last_seen_age_ms,
        blocks=source.blocks,
        samples=source.samples,
        records=source.records,
        marks=source.marks,
        unmapped=source.unmapped,
        dropped=source.dropped,
        duplicates=source.duplicates,
        errors=source.errors,
        last_error=source.last_error,
        last_error_age_ms=source.last_error_age_ms,
        clock_offset_ms=source.clock_offset_ms,
    )


def _sink_message(sink: SinkFacts) -> SinkStatus:
    return SinkStatus(
        name=sink.name,
        kind=sink.kind,
        mode=sink.mode,
        state=sink.state,
        sent=sink.sent,
        waiting=sink.waiting,
        skipped=sink.skipped,
        refused=sink.refused,
        errors=sink.errors,
        last_error=sink.last_error,
        last_error_age_ms=sink.last_error_age_ms,
        last_sent_age_ms=sink.last_sent_age_ms,
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
        error=model.error or model.idle,
        candidate=model.prospect.candidate,
        stage=model.prospect.stage,
        previous=model.prospect.previous,
        concern=model.prospect.concern,
    )
