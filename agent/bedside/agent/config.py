"""`agent.toml`: what one device reads, keeps, trains and tells. Unknown keys are errors; every key has a default.

Relative paths are relative to the directory that holds the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from bedside.core.errors import ConfigError
from bedside.core.ids import check_id
from bedside.service.config import load_config

CONFIG_NAME: Final = "agent.toml"
BUFFER_NAME: Final = "buffer.db"
"""The signal database, inside the state directory."""

HeartbeatDetail = Literal["minimal", "standard"]
"""How much a heartbeat tells: see `bedside.agent.health.heartbeat`."""

OptionValue = str | int | float | bool | list[str | int]


class SourceConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One input.

    Attributes:
        kind: `replay`, `serial` or another kind that `bedside.agent.sources` knows.
        name: how health and logs call it; an id.
        options: what that kind of source takes; relative paths are relative to the directory of `agent.toml`.
    """

    kind: str
    name: str
    options: dict[str, OptionValue] = msgspec.field(default_factory=dict)


class BufferConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The store of signal, windows and predictions.

    Attributes:
        cap_mib: largest size of the database, MiB; the oldest signal goes first.
        session_gap_s: a stream that is silent for so long closes its session, seconds.
    """

    cap_mib: int = 512
    session_gap_s: float = 300.0


class TrainingConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Limits of the training child.

    Attributes:
        enabled: false makes a device that only infers; it declines every plan with that sentence.
        nice: added to the child's priority, 0 to 19.
        memory_mib: largest address space that the child may take beyond its libraries, MiB.
        timeout_s: the child is ended after so many seconds.
    """

    enabled: bool = True
    nice: int = 10
    memory_mib: int = 1024
    timeout_s: float = 3_600.0


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
        socket: path of the unix socket; its directory gets mode 0700.
    """

    socket: Path = Path("run/agent.sock")


class AgentConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """All of `agent.toml`.

    Attributes:
        state_dir: everything that must survive: identity, databases, outbox, models.
        policy: this device's copy of the site's policy file.
        model: bundle to start with (tar or directory); empty = wait for the first plan.
        heartbeat: `minimal` or `standard`.
        sources: the inputs.
    """

    state_dir: Path = Path("state")
    policy: Path = Path("policy.toml")
    model: str = ""
    heartbeat: HeartbeatDetail = "standard"
    sources: list[SourceConfig] = msgspec.field(default_factory=list)
    buffer: BufferConfig = msgspec.field(default_factory=BufferConfig)
    training: TrainingConfig = msgspec.field(default_factory=TrainingConfig)
    link: LinkConfig = msgspec.field(default_factory=LinkConfig)
    api: ApiConfig = msgspec.field(default_factory=ApiConfig)


def load_agent_config(directory: Path) -> AgentConfig:
    """Read `directory/agent.toml` and make its paths absolute.

    Raises:
        ConfigError: `config-missing`, `config-invalid` (unknown key, wrong type) or `config-value`.
    """
    base = directory.absolute()
    config = load_config(base / CONFIG_NAME, AgentConfig)
    _check(config)
    return msgspec.structs.replace(
        config,
        state_dir=base / config.state_dir,
        policy=base / config.policy,
        model=str(base / config.model) if config.model else "",
        api=ApiConfig(socket=base / config.api.socket),
    )


def _check(config: AgentConfig) -> None:
    names = [source.name for source in config.sources]
    for name in names:
        check_id(name, "source name")
    rules = (
        (len(set(names)) == len(names), "two sources have the same name"),
        (0 <= config.training.nice <= 19, "training.nice must be 0 to 19"),
        (config.training.memory_mib >= 64, "training.memory_mib must be at least 64"),
        (config.training.timeout_s > 0, "training.timeout_s must be above zero"),
        (config.buffer.cap_mib >= 1, "buffer.cap_mib must be at least 1"),
        (config.buffer.session_gap_s > 0, "buffer.session_gap_s must be above zero"),
        (0 < config.link.poll_wait_ms <= 60_000, "link.poll_wait_ms must be 1 to 60000"),
        (config.link.heartbeat_s >= 1, "link.heartbeat_s must be at least 1"),
    )
    for holds, sentence in rules:
        if not holds:
            raise ConfigError("config-value", f"{CONFIG_NAME}: {sentence}", remedy=f"correct it in {CONFIG_NAME}")


TEMPLATE: Final = """\
# One Bedside device. Every key may be left out; the values below are the defaults. Unknown keys are errors.
# Relative paths are relative to this file.

state_dir = "state"        # identity, databases, outbox and models live here
policy = "policy.toml"     # this device's copy of its site's policy
model = ""                 # bundle to start with (tar or directory); empty: wait for the first plan
heartbeat = "standard"     # or "minimal": only versions, uptime and component states leave the device

[buffer]
cap_mib = 512              # largest size of the signal database, MiB; the oldest signal goes first
session_gap_s = 300.0      # a stream that is silent for so long closes its session

[training]
enabled = true             # false: this device only infers
nice = 10                  # priority of the training child
memory_mib = 1024          # memory that the training child may take, MiB
timeout_s = 3600.0         # the training child is ended after so many seconds

[link]
enabled = true             # false: never dial out
service_address = ""       # host:port of the mTLS port; empty: the one learned at enrolment
poll_wait_ms = 20000       # how long one question for an offer may wait
heartbeat_s = 10.0         # until the coordinator says otherwise

[api]
socket = "run/agent.sock"  # unix socket of `bedside agent status` and its like

# One table per input:
# [[sources]]
# kind = "replay"
# name = "wrist"
# [sources.options]
# stream = "wrist"
# data = "recording.npz"   # or kind = "serial" with port = "/dev/ttyACM0"
"""
"""What `bedside agent init` writes."""
