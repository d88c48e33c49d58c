"""What SIGHUP does: `coordinator.toml` is read again, and what can change while the coordinator runs does.

Invariants:
    * A file with a mistake changes nothing.
    * What only a restart can change keeps its value, and is named.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from bedside.coordinator.config import CoordinatorConfig
from bedside.coordinator.parts import Parts
from bedside.core.errors import ConfigError
from bedside.service.logs import event

BOUND_AT_START: Final = (
    "service_address",
    "enrolment_address",
    "operator_socket",
    "database",
    "database_password",
    "metrics",
)
"""Where it listens already, and what it has opened."""

_LOGGER: Final = logging.getLogger(__name__)


def reload_config(parts: Parts, read: Callable[[], CoordinatorConfig]) -> str:
    """Take up the configuration as `read` finds it now; returns how that went, in a sentence."""
    try:
        wanted = read()
    except ConfigError as error:
        event(_LOGGER, "reload-refused", level=logging.WARNING, error=error)
        return f"the configuration is refused, the one before it holds: {error.sentence}"
    before = parts.config
    taken = msgspec.structs.replace(wanted, **{name: getattr(before, name) for name in BOUND_AT_START})
    changed = [name for name in taken.__struct_fields__ if getattr(taken, name) != getattr(before, name)]
    waiting = [name for name in BOUND_AT_START if getattr(wanted, name) != getattr(before, name)]
    parts.config = taken
    parts.roll.heartbeat_s = taken.heartbeat_s
    logging.getLogger().setLevel(taken.log_level)
    parts.signals.rounds.bump()  # its waiting times may be others
    event(_LOGGER, "reloaded", changed=",".join(changed), needs_restart=",".join(waiting))
    if waiting:
        return f"reloaded; a restart is needed for {', '.join(waiting)}"
    return f"reloaded: {', '.join(changed) or 'nothing has changed'}"
