"""`agent.toml`: what one device reads, keeps, trains and tells. Unknown keys are errors; every key has a default.

Relative paths are relative to the directory that holds the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from bedside.agent.config_bounds import MAX_KEPT_DAYS, MAX_MIB, MAX_WAIT_S
from bedside.agent.personal.settings import PersonalConfig, personal_rules
from bedside.agent.serving.rules import ServingConfig, serving_rules
from bedside.agent.training.settings import TrainingConfig, training_rules
from bedside.core.errors import ConfigError
from bedside.core.ids import check_id
from bedside.service.config import load_config
from bedside.service.metrics_config import LocalMetricsConfig

CONFIG_NAME: Final = "agent.toml"
BUFFER_NAME: Final = "buffer.db"
"""The signal database, inside the state directory."""


HeartbeatDetail = Literal["minimal", "standard"]
"""How much a heartbeat tells: see `bedside.agent.health.heartbeat`."""

OptionValue = str | int | float | bool | list[Any] | dict[str, Any]
"""What a source's or a sink's option may hold before its kind has looked at it."""


class SourceConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One input.

    Attributes:
        kind: `replay`, `serial` or another kind, see `bedside.agent.sources.registry`.
        name: how health and logs call it; an id.
        options: what that kind of source takes; relative paths are relative to the directory of `agent.toml`.
    """

    kind: str
    name: str
    options: dict[str, OptionValue] = msgspec.field(default_factory=dict)


class SinkConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One output. Without any, nothing leaves but what rounds and heartbeats send.

    Attributes:
        kind: `fhir`, `hl7`, `mqtt`, `webhook`, `csv`.
        name: how health and logs call it; an id.
        options: what that kind of sink takes; relative paths are relative to the directory of `agent.toml`.
    """

    kind: str
    name: str
    options: dict[str, OptionValue] = msgspec.field(default_factory=dict)


class StreamKeeping(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long one stream is kept, where it differs from the others.

    Attributes:
        stream: its id.
        priority: where space is short, signal of a lower priority goes first; streams without an entry have 0.
        raw_hours: as in `BufferConfig`; absent = as there.
    """

    stream: str
    priority: int = 0
    raw_hours: float | None = None


class BufferConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The store of signal, windows and predictions.

    Attributes:
        cap_mib: largest size of the database, MiB; the oldest signal goes first.
        session_gap_s: a stream that is silent for so long closes its session, seconds.
        consent_training: whether a new session's windows may be trained on, until somebody says otherwise.
        raw_hours: signal and records older than this leave their labelled windows and a summary behind.
        windows_days: labelled windows are kept so long.
        summaries_days: summaries, predictions, labels and alarms are kept so long.
        streams: what differs by stream.
    """

    cap_mib: int = 512
    session_gap_s: float = 300.0
    consent_training: bool = True
    raw_hours: float = 72.0
    windows_days: float = 30.0
    summaries_days: float = 400.0
    streams: list[StreamKeeping] = msgspec.field(default_factory=list)


class ModelConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One model that serves from the start.

    Attributes:
        bundle: tar or directory.
        streams: streams that it reads; empty = the one that its manifest names.
    """

    bundle: str
    streams: list[str] = msgspec.field(default_factory=list)


class InferenceConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How models are run.

    Attributes:
        runtime: `auto` measures on this machine and takes the faster one that reproduces the golden vectors.
        queue_windows: windows of one model that may wait; beyond that the oldest is dropped and counted.
    """

    runtime: Literal["auto", "onnx", "litert"] = "auto"
    queue_windows: int = 64


class AlarmRule(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """When to raise an alarm: on a class or value of a model, or on a field of a record.

    Attributes:
        name: an id, unique.
        stream: which stream; empty = every one.
        label: class or label whose probability is watched; or
        output: value of a regression that is watched; or
        field: field of a record whose value is watched. Exactly one of the three.
        model: whose `label` or `output`; empty = of every model that knows it, as they come.
        above: raised at this value or more; or
        below: at this value or less. Exactly one of the two.
        clear: cleared when the value is back past this one (hysteresis); absent = past the limit itself.
        hold_off_s: the limit must be passed for so long, seconds of signal.
        priority: as IEC 60601-1-8 names them.
        escalate_s: raised again, louder, when nobody has acknowledged it for so long; 0 = never.
    """

    name: str
    stream: str = ""
    label: str = ""
    output: str = ""
    field: str = ""
    model: str = ""
    above: float | None = None
    below: float | None = None
    clear: float | None = None
    hold_off_s: float = 0.0
    priority: Literal["low", "medium", "high"] = "medium"
    escalate_s: float = 0.0


class LinkConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The way to the coordinator.

    Attributes:
        enabled: false makes a device that never dials out.
        service_address: host:port of the mTLS port; empty = the one learned at enrolment.
        poll_wait_ms: how long one question for an offer may wait, at most 60,000.
        heartbeat_s: seconds between heartbeats until the coordinator says otherwise.
    """

    enabled: bool = True
    service_address: str = ""
    poll_wait_ms: int = 20_000
    heartbeat_s: float = 10.0


class ApiConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The local API.

    Attributes:
        socket: path of the unix socket; its directory is made with mode 0700 where there is none.
    """

    socket: Path = Path("run/agent.sock")


class AgentConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """All of `agent.toml`.

    Attributes:
        state_dir: everything that must survive: identity, databases, outbox, models.
        policy: this device's copy of the site's policy file.
        model: bundle to start with (tar or directory); empty = wait for the first plan.
        models: further models that serve beside it.
        heartbeat: `minimal` or `standard`.
        sources: the inputs.
        sinks: the outputs.
        alarms: the rules of alarms.
    """

    state_dir: Path = Path("state")
    policy: Path = Path("policy.toml")
    model: str = ""
    heartbeat: HeartbeatDetail = "standard"
    models: list[ModelConfig] = msgspec.field(default_factory=list)
    sources: list[SourceConfig] = msgspec.field(default_factory=list)
    sinks: list[SinkConfig] = msgspec.field(default_factory=list)
    alarms: list[AlarmRule] = msgspec.field(default_factory=list)
    inference: InferenceConfig = msgspec.field(default_factory=InferenceConfig)
    buffer: BufferConfig = msgspec.field(default_factory=BufferConfig)
    training: TrainingConfig = msgspec.field(default_factory=TrainingConfig)
    serving: ServingConfig = msgspec.field(default_factory=ServingConfig)
    personal: PersonalConfig = msgspec.field(default_factory=PersonalConfig)
    link: LinkConfig = msgspec.field(default_factory=LinkConfig)
    api: ApiConfig = msgspec.field(default_factory=ApiConfig)
    metrics: LocalMetricsConfig = LocalMetricsConfig()


def load_agent_config(directory: Path) -> AgentConfig:
    """Read `directory/agent.toml` and make its paths absolute.

    Raises:
        ConfigError: `config-missing`, `config-invalid` (unknown key, wrong type) or `config-value`.
    """
    base = directory.absolute()
    try:
        config = load_config(base / CONFIG_NAME, AgentConfig)
    except ConfigError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise ConfigError(
            error.code,
            f"there is no {CONFIG_NAME} in {directory}",
            remedy=f"name a device's directory, or make one with `bedside agent init {directory}`",
        ) from error
    _check(config)
    return msgspec.structs.replace(
        config,
        state_dir=base / config.state_dir,
        policy=base / config.policy,
        model=str(base / config.model) if config.model else "",
        models=[msgspec.structs.replace(model, bundle=str(base / model.bundle)) for model in config.models],
        api=ApiConfig(socket=base / config.api.socket),
    )


def _check(config: AgentConfig) -> None:
    names = [source.name for source in config.sources]
    sinks = [sink.name for sink in config.sinks]
    listens = [source.options["listen"] for source in config.sources if "listen" in source.options]
    doors = [str(listen).replace("localhost", "127.0.0.1") for listen in listens]
    for name in names:
        check_id(name, "source name")
    for name in sinks:
        check_id(name, "sink name")
    buffer = config.buffer
    rules = (
        (len(set(names)) == len(names), "two sources have the same name"),
        (len(set(sinks)) == len(sinks), "two sinks have the same name"),
        (len(set(doors)) == len(doors), "two sources listen on one address and port"),
        *training_rules(config.training),
        (1 <= buffer.cap_mib <= MAX_MIB, f"buffer.cap_mib must be 1 to {MAX_MIB}"),
        _positive("buffer.session_gap_s", buffer.session_gap_s, MAX_WAIT_S),
        _positive("buffer.raw_hours", buffer.raw_hours, MAX_KEPT_DAYS * 24),
        _positive("buffer.windows_days", buffer.windows_days, MAX_KEPT_DAYS),
        _positive("buffer.summaries_days", buffer.summaries_days, MAX_KEPT_DAYS),
        *(
            _positive(f"buffer.streams.raw_hours of {stream.stream}", stream.raw_hours, MAX_KEPT_DAYS * 24)
            for stream in buffer.streams
            if stream.raw_hours is not None
        ),
        (1 <= config.inference.queue_windows <= 100_000, "inference.queue_windows must be 1 to 100000"),
        *serving_rules(config.serving),
        *personal_rules(config.personal),
        (0 < config.link.poll_wait_ms <= 60_000, "link.poll_wait_ms must be 1 to 60000"),
        (1 <= config.link.heartbeat_s <= MAX_WAIT_S, f"link.heartbeat_s must be 1 to {MAX_WAIT_S}"),
    )
    for holds, sentence in rules:
        if not holds:
            raise ConfigError("config-value", f"{CONFIG_NAME}: {sentence}", remedy=f"correct it in {CONFIG_NAME}")


def _positive(name: str, value: float, most: int) -> tuple[bool, str]:
    """Whether a number lies in its bounds, with the sentence for one that does not."""
    return 0 < value <= most, f"{name} must be above zero, and at most {most}"


TEMPLATE: Final = """\
# One Bedside device. Every key may be left out; the values below are the defaults. Unknown keys are errors.
# Relative paths start at the device's directory: with the package /var/lib/bedside/agent, which links to this file.

state_dir = "state"        # identity, databases, outbox and models live here
policy = "policy.toml"     # this device's copy of its site's policy
model = ""                 # bundle to start with (tar or directory); empty: wait for the first plan
heartbeat = "standard"     # or "minimal": only versions, uptime and component states leave the device

[buffer]
cap_mib = 512              # largest size of the signal database, MiB; the oldest signal goes first
session_gap_s = 300.0      # a stream that is silent for so long closes its session
consent_training = true    # whether new sessions may be trained on, until somebody says otherwise
raw_hours = 72.0           # older signal leaves its labelled windows and a summary behind
windows_days = 30.0        # labelled windows are kept so long
summaries_days = 400.0     # summaries, predictions, labels and alarms are kept so long

[inference]
runtime = "auto"           # or "onnx", "litert"; auto measures on this machine
queue_windows = 64         # windows of one model that may wait before the oldest is dropped and counted

[training]
enabled = true             # false: this device only infers
nice = 19                  # priority of the training child
memory_mib = 1024          # memory that the training child may take, MiB
timeout_s = 3600.0         # training of one plan ends after so many seconds, pauses not counted
examples_mib = 64          # windows in memory; the others are put aside, sealed, on the disk
save_s = 30.0              # seconds between two states on the disk, from which it goes on after a power cut

[training.gates]           # when it may train; a training that is under way pauses (docs/learning.md)
temperature_c = 80.0       # not above, degrees Celsius
while_throttled = false    # whether to train while the processor is throttled or its voltage is low
power = "any"              # "mains": not on battery; "battery": on battery above battery_share
battery_share = 0.5
load_per_core = 4.0        # not above this one-minute load, per core
hours = []                 # local hours, for instance ["22:00-06:00"]; empty: always
idle_streams = []          # not while a session is open on one of these; ["*"]: on any
while_alarm = true         # whether to train while an alarm is raised
settle_s = 60.0            # all of this must have held for so long before training goes on

[serving]
gate = true                # a newer model is compared with the one that serves, on labelled windows that are held out
gate_margin = 0.02         # by how much of the score it may surely be worse
gate_min_windows = 50      # with fewer validation windows it is not judged, and serves
shadow_windows = 0         # live windows for which it first runs beside the other one; 0: none
shadow_disagreement = 0.1  # largest share of them on which the two may differ
models = []                # names that a coordinator may bring to serve here; empty: whatever your signers have signed

[personal]                 # what this device learns for itself of its models (docs/learning.md)
fine_tune = false          # whether it tunes a part of each on its own labelled windows
temperature = false        # whether it fits a temperature to its probabilities
suffix = "head"            # which part; the bundle must have a training graph for it
epochs = 5
learning_rate = 0.0        # 0: the one that the bundle's author recommends
every_hours = 24.0         # between two runs; a model that newly serves has one at once
min_windows = 100          # labelled windows without which nothing is tuned
max_windows = 4096         # the newest so many are used

[link]
enabled = true             # false: never dial out
service_address = ""       # host:port of the mTLS port; empty: the one learned at enrolment
poll_wait_ms = 20000       # how long one question for an offer may wait
heartbeat_s = 10.0         # until the coordinator says otherwise

[api]
socket = "run/agent.sock"  # unix socket of `bedside agent status` and its like

[metrics]
listen = ""                # "127.0.0.1:9465": a Prometheus on this machine may ask there for what `status` says

# One table per input:
# [[sources]]
# kind = "replay"
# name = "wrist"
# [sources.options]
# stream = "wrist"
# data = "recording.npz"   # or kind = "serial" with port = "/dev/ttyACM0"

# One table per output; without any, nothing leaves but what rounds and heartbeats send (docs/sinks.md):
# [[sinks]]
# kind = "webhook"         # or "fhir", "hl7", "mqtt", "csv"
# name = "his"
# [sinks.options]
# url = "https://his.hospital.example/bedside"
# secret = "credential:hook-secret"

# One table per model that differs from [personal]:
# [[personal.models]]
# name = "rhythm"
# fine_tune = true

# One table per further model that serves beside the first:
# [[models]]
# bundle = "ecg.tar"
# streams = ["bed-4-ecg"]  # empty: the stream that its manifest names

# One table per stream that is kept longer or shorter than the others:
# [[buffer.streams]]
# stream = "bed-4-ecg"
# priority = 1             # where space is short, lower priorities go first
# raw_hours = 168.0

# One table per alarm:
# [[alarms]]
# name = "fall"
# label = "fall"           # class whose probability is watched; or field = "spo2" of a record;
#                          # or output = "po2", a value that a model estimates
# model = "wrist"          # whose probability; empty: of every model that knows the class
# stream = "bed-4-ecg"     # empty: every stream
# above = 0.9              # or below = 88.0
# clear = 0.6              # hysteresis
# hold_off_s = 2.0         # seconds of signal for which it must hold
# priority = "high"        # low, medium or high
# escalate_s = 60.0        # when nobody acknowledges it; 0: never
"""
"""What `bedside agent init` writes."""
