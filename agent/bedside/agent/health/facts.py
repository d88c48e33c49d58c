"""What the agent knows about itself at one moment: the one source of heartbeat, local API and command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bedside.agent.health.machine import MachineFacts
from bedside.agent.inference.latency import LatencyFacts
from bedside.agent.training.gates import Gate
from bedside.agent.windows.quality import StreamQuality
from bedside.proto.v1.device_pb2 import ComponentHealth
from bedside.proto.v1.device_pb2 import ComponentState as WireState
from bedside.service.health import ComponentState, Level

COMPONENTS = ("ingest", "buffer", "inference", "trainer", "link", "trustee", "sinks", "config")
"""In the order in which they are shown."""

_WIRE = {
    Level.OK: WireState.COMPONENT_STATE_OK,
    Level.DEGRADED: WireState.COMPONENT_STATE_DEGRADED,
    Level.FAILED: WireState.COMPONENT_STATE_FAILED,
}


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """One stream since the process started; ages in milliseconds."""

    stream: str
    session_open: bool
    rate_hz: float
    blocks: int
    records: int
    gaps: int
    dropped_blocks: int
    last_seen_age_ms: int
    quality: StreamQuality | None = None


@dataclass(frozen=True, slots=True)
class Prospect:
    """What may come to serve in a slot.

    Attributes:
        candidate: its digest; empty when there is none.
        stage: `gate`, `shadow` or `held`; empty as well.
        previous: digest of what a rollback returns to; empty when there is nothing.
        concern: why somebody should look at it: a sentence whose subject is the model; empty when nobody need.
    """

    candidate: bytes = b""
    stage: str = ""
    previous: bytes = b""
    concern: str = ""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One slot since the process started.

    Attributes:
        name: of the model, or of the file that should have held one.
        digest: of what serves; empty when nothing does.
        streams: what it reads.
        runtime: `onnx` or `litert`.
        predictions: windows decided.
        dropped_windows: windows that left the queue undecided.
        waiting_windows: windows in the queue.
        gaps: interruptions of its streams.
        latencies: by stage.
        error: what is wrong, for this machine's users only; empty when nothing is.
        idle: why a sound model can decide nothing of a stream, for the same: a sentence whose subject is the model.
        prospect: what may come to serve in its place.
    """

    name: str
    digest: bytes = b""
    streams: Sequence[str] = ()
    runtime: str = ""
    predictions: int = 0
    dropped_windows: int = 0
    waiting_windows: int = 0
    gaps: int = 0
    latencies: Sequence[LatencyFacts] = ()
    error: str = ""
    idle: str = ""
    prospect: Prospect = Prospect()


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source since the process started.

    Attributes:
        name: from `agent.toml`.
        kind: from `agent.toml`.
        state: `running`, `waiting` (failed; it starts again) or `ended`.
        streams: that it may deliver.
        connected: whether its peer or device is there; None where that means nothing.
        detail: what it says of itself, in a few words.
        last_seen_age_ms: since its last event; None before the first.
        values: in records.
        unmapped: readings in the quarantine.
        dropped: readings or samples that it had to let go.
        duplicates: messages that came again and were not taken again.
        errors: times that it failed.
        last_error: code, sentence and remedy of the last failure, for this machine's users only.
        last_error_age_ms: since that; None before the first.
        clock_offset_ms: how far the sender's clock is ahead of ours; None while unknown.
        listens: whether it waits for others to come.
    """

    name: str
    kind: str
    state: str
    streams: Sequence[str] = ()
    connected: bool | None = None
    detail: str = ""
    last_seen_age_ms: int | None = None
    blocks: int = 0
    samples: int = 0
    records: int = 0
    values: int = 0
    marks: int = 0
    unmapped: int = 0
    dropped: int = 0
    duplicates: int = 0
    errors: int = 0
    last_error: str = ""
    last_error_age_ms: int | None = None
    clock_offset_ms: int | None = None
    listens: bool = False


@dataclass(frozen=True, slots=True)
class SinkFacts:
    """One sink; counts of deliveries are durable.

    Attributes:
        name: from `agent.toml`.
        kind: from `agent.toml`.
        mode: `continuous`, `scheduled`, `event` or `demand`.
        state: `idle`, `sending` or `waiting` (failed; it tries again).
        sent: deliveries that the receiver has taken.
        waiting: deliveries in its queue.
        skipped: beyond the cap of its queue, where the oldest were let go, or not readable in the buffer.
        refused: that the receiver would not take, however often.
        errors: times that a delivery failed since the process started.
        last_error: code, sentence and remedy of the last failure, for this machine's users only.
        last_error_age_ms: since that; None before the first.
        last_sent_age_ms: since the last delivery; None before the first.
        stalled_s: seconds for which it has had something to deliver and has delivered nothing; 0 for one that is idle.
        left_out_age_s: seconds since this process last saw it skip or refuse a row; None where it did not.
    """

    name: str
    kind: str
    mode: str
    state: str
    sent: int = 0
    waiting: int = 0
    skipped: int = 0
    refused: int = 0
    errors: int = 0
    last_error: str = ""
    last_error_age_ms: int | None = None
    last_sent_age_ms: int | None = None
    stalled_s: float = 0.0
    left_out_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """The newest plan that this device dealt with.

    Attributes:
        state: of its contribution, for instance `counted`; empty before the first plan.
        joined: whether bytes were committed for it.
        code: why not, or why it was dropped.
        reason: the same in a sentence, for this machine's users only.
    """

    task: str = ""
    round_number: int = 0
    state: str = ""
    joined: bool = False
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """Everything.

    Attributes:
        version: of the agent.
        site: empty while it is not enrolled.
        device: pseudonymous id.
        uptime_s: of the process.
        restarts: of the process since the state directory was made.
        last_exit: `clean`, `killed` or `first-start`.
        components: by name.
        streams: by arrival.
        models: every slot.
        open_alarms: not both cleared and acknowledged.
        raised_alarms: of these, not cleared.
        predictions: made since the state directory was made.
        last_prediction_age_ms: None while there is none.
        model_running: digest in the slot that rounds train, or the first; empty while there is none.
        model_wanted: digest of what it was told to use.
        config_digest: of the effective configuration.
        buffer_bytes: of the signal database.
        buffer_oldest_age_s: age of the oldest sample in it, 0 when it is empty.
        clock_offset_ms: the coordinator's clock minus ours; None before the first answer.
        key_age_s: since the credential was issued; 0 without one.
        round: the newest plan.
        machine: a reading.
        sources: in the order of `agent.toml`.
        sinks: likewise.
        training_waits: the gate that a training waits for; None when none does.
    """

    version: str
    site: str
    device: str
    uptime_s: int
    restarts: int
    last_exit: str
    components: Mapping[str, ComponentState]
    streams: Sequence[StreamFacts]
    models: Sequence[ModelFacts]
    open_alarms: int
    raised_alarms: int
    predictions: int
    last_prediction_age_ms: int | None
    model_running: bytes
    model_wanted: bytes
    config_digest: bytes
    buffer_bytes: int
    buffer_oldest_age_s: int
    clock_offset_ms: int | None
    key_age_s: int
    round: RoundFacts
    machine: MachineFacts
    sources: Sequence[SourceFacts] = ()
    sinks: Sequence[SinkFacts] = ()
    training_waits: Gate | None = None

    def component_messages(self) -> list[ComponentHealth]:
        """The components as the wire has them."""
        return [
            ComponentHealth(component=name, state=_WIRE[state.level], sentence=state.sentence)
            for name, state in self.components.items()
        ]
