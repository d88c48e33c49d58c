"""How each component of a process is: never one bit for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from bedside.core.clock import Clock

STARTING_S: Final = 60.0
"""Seconds in which a component that has not reported yet is starting, and not failed."""

OVERALL: Final = ""
"""The name under which listeners hear of the worst component (as in grpc.health.v1)."""


class Level(IntEnum):
    """How bad it is; the value is the exit code of monitoring plug-ins (0 fine, 1 warning, 2 critical)."""

    OK = 0
    DEGRADED = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class ComponentState:
    """What is known of one component.

    Attributes:
        level: how bad it is.
        sentence: why, for a person; holds nothing about a patient.
        since_ns: when it came to this level, nanoseconds since the epoch.
    """

    level: Level
    sentence: str
    since_ns: int


Listener = Callable[[str, Level], None]


class Health:
    """The components of one process. Silence is not health: who has not reported a minute after the start has failed.

    Listeners hear the levels as they were reported: a component that is starting serves nobody yet.
    """

    def __init__(self, clock: Clock, components: tuple[str, ...]) -> None:
        self._clock = clock
        now_ns = clock.now_ns()
        self._states = {name: ComponentState(Level.FAILED, "has not started yet", now_ns) for name in components}
        self._silent = set(components)
        self._began_s = clock.monotonic_s()
        self._listeners: list[Listener] = []

    def set(self, component: str, level: Level, sentence: str) -> None:
        """Report a component's state; its `since` moves only when the level does.

        Raises:
            KeyError: the component was not named at construction.
        """
        old = self._states[component]
        worst_before = _worst(self._states).level
        self._silent.discard(component)
        since_ns = old.since_ns if old.level == level else self._clock.now_ns()
        self._states[component] = ComponentState(level, sentence, since_ns)
        if old.level != level:
            self._tell(component, level)
        worst = _worst(self._states).level
        if worst != worst_before:
            self._tell(OVERALL, worst)

    def snapshot(self) -> Mapping[str, ComponentState]:
        """Return every component's state."""
        states = dict(self._states)
        if self._silent and self._clock.monotonic_s() - self._began_s < STARTING_S:
            starting = {name: states[name].since_ns for name in self._silent}
            states |= {name: ComponentState(Level.OK, "starting", since_ns) for name, since_ns in starting.items()}
        return states

    def worst(self) -> ComponentState:
        """Return the worst state, of those the one that lasts longest; OK when there are no components."""
        return _worst(self.snapshot())

    @property
    def exit_status(self) -> int:
        """0, 1 or 2, as monitoring plug-ins report it."""
        return int(self.worst().level)

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with every component's level now, and whenever one changes."""
        self._listeners.append(listener)
        for name, state in self._states.items():
            listener(name, state.level)
        listener(OVERALL, _worst(self._states).level)

    def _tell(self, component: str, level: Level) -> None:
        for listener in self._listeners:
            listener(component, level)


def _worst(states: Mapping[str, ComponentState]) -> ComponentState:
    nothing = ComponentState(Level.OK, "", 0)
    return max(states.values(), key=lambda state: (state.level, -state.since_ns), default=nothing)
