"""The unit of systemd that runs a component."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bedside.service.doctor.check import Check, Finding, Place, bad, doubtful, good
from bedside.service.systemd import find_unit

MANY_RESTARTS: Final = 5


def _service(place: Place) -> Iterator[Finding]:
    unit = find_unit(place.unit, place.root)
    if unit is None or not unit.runs(place.directory):
        return
    if unit.state == "failed":
        why = unit.properties.get("Result", "")
        yield bad(f"{unit.name} has failed ({why or 'systemd does not say why'})")
    elif unit.properties.get("SubState") == "auto-restart":
        why = unit.properties.get("Result", "")
        yield bad(f"{unit.name} does not stay up ({why}): it was restarted {unit.restarts} times")
    elif unit.is_skipped:
        words = f"what the other checks miss comes first, then systemctl start {unit.name}"
        yield bad(f"{unit.name} was not started, for it is not set up yet", words)
    elif unit.state not in {"active", "activating", "reloading"}:
        yield bad(f"{unit.name} does not run ({unit.state})", f"systemctl enable --now {unit.name}")
    elif not unit.is_enabled:
        yield doubtful(f"{unit.name} runs, and is not started with the machine", f"systemctl enable {unit.name}")
    elif unit.restarts >= MANY_RESTARTS:
        yield doubtful(f"{unit.name} was restarted {unit.restarts} times since it was started")
    else:
        yield good(f"{unit.name} is {unit.state}, and starts with the machine")


def how_to_start(place: Place, command: str) -> str:
    """What starts a component that does not run: its unit, where one runs this directory, else a command."""
    unit = find_unit(place.unit, place.root)
    if unit is None or not unit.runs(place.directory):
        return command
    return f"systemctl start {unit.name}; journalctl -u {unit.name} -n 50"


SERVICE: Final = Check(
    "service",
    "that its unit runs, is started with the machine, and is not restarted again and again",
    "systemctl status UNIT; journalctl -u UNIT -n 50",
    _service,
)
