"""The checks of a device, in the order in which one thing needs the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bedside.agent.config import CONFIG_NAME, AgentConfig, load_agent_config
from bedside.agent.doctor.configuration import CONFIGURATION
from bedside.agent.doctor.inputs import BLUETOOTH, SERIAL
from bedside.agent.doctor.kernel import HEAT
from bedside.agent.doctor.running import RUNNING
from bedside.agent.doctor.runtimes import LITERT, ONNX
from bedside.core.errors import ConfigError
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.doctor.check import Part, Place
from bedside.service.doctor.membership import membership_checks
from bedside.service.doctor.reach import reach_checks
from bedside.service.doctor.storage import DISK, OWNER, WRITING
from bedside.service.doctor.unit import SERVICE
from bedside.service.identity import DIRECTORY_NAME


def identity_directory(place: Place) -> Path:
    """Where a device's identity lies: where its configuration says, or would say."""
    try:
        return load_agent_config(place.directory).state_dir / DIRECTORY_NAME
    except ConfigError:  # the check of the configuration tells
        return place.directory / AgentConfig().state_dir / DIRECTORY_NAME


PART: Final = Part(
    name="agent",
    directory=Path("/var/lib/bedside/agent"),
    marker=CONFIG_NAME,
    unit="bedside-agent",
    early=(DISK, WRITING, ONNX, LITERT, HEAT),
    checks=(
        CONFIGURATION,
        *membership_checks(identity_directory, Role.ROLE_DEVICE, "bedside agent setup"),
        OWNER,
        SERIAL,
        BLUETOOTH,
        *reach_checks(identity_directory, Role.ROLE_DEVICE),
        SERVICE,
        RUNNING,
    ),
)
