"""The configuration, as `bedside agent check` looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bedside.agent.config import AgentConfig, load_agent_config
from bedside.core.errors import ConfigError
from bedside.service.doctor.check import Check, Finding, Place, bad, doubtful, good
from bedside.service.platform import SystemEntropy


def config_of(place: Place) -> AgentConfig | None:
    """The configuration; None where it cannot be read, which the check of it tells."""
    try:
        return load_agent_config(place.directory)
    except ConfigError:
        return None


def _configuration(place: Place) -> Iterator[Finding]:
    from bedside.agent.checking import check_device
    from bedside.agent.naming import typeable

    with typeable(place.directory):
        found = check_device(
            place.directory, load_agent_config(place.directory), place.clock, SystemEntropy(), place.environ
        )
    parts = [one for one in found if one.part != "identity"]  # which has checks of its own
    for one in parts:
        if one.error is not None:
            yield bad(f"{one.part}: {one.error.sentence}", one.error.remedy)
        for warning in one.warnings:
            yield doubtful(f"{one.part}: {warning}", "see `bedside agent check`")
    wrong = sum(one.error is not None for one in parts)
    if not wrong:
        yield good(f"{len(parts)} parts of it hold")


CONFIGURATION: Final = Check(
    "configuration",
    "agent.toml, every source, sink, secret, model and alarm in it, and the policy: what `bedside agent check` says",
    "correct agent.toml, then systemctl reload bedside-agent, or start the agent again",
    _configuration,
)
