"""Gates: when this device may train. Rules over what is known of the machine; a shell reads that.

Invariants:
    * A gate that is closed opens only past its limit by some way, and training goes on only when all gates have been
      open for a while: what training itself warms or loads does not make it flap.
    * A gate that cannot be read is open, but for `power`, which is closed where somebody asked for it; each is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from bedside.agent.training.settings import ANY_STREAM, GatesConfig

Gate = Literal["temperature", "throttling", "power", "load", "hours", "session", "alarm"]

WAITING: Final = "waiting: "
"""Begins the sentence of a trainer whose gates are closed."""
COOLER_C: Final = 5.0
"""How far below its limit a machine must be that was too warm, degrees Celsius."""
FULLER: Final = 0.05
"""How far above its limit a battery must be that was too empty, share of its charge."""
QUIETER: Final = 0.75
"""Share of its limit to which a load must fall that was too high."""


@dataclass(frozen=True, slots=True)
class MachineState:
    """What the rules look at; None is what cannot be read.

    Attributes:
        temperature_c: of the hottest sensor.
        throttled: the processor is slowed down because of heat or power.
        undervoltage: the supply's voltage is low.
        on_mains: False on battery.
        battery_share: charge of the emptiest battery, 0 to 1; None where there is none.
        load_per_core: one-minute load average by cores.
        local_minute: minutes after local midnight.
        open_streams: with an open session.
        alarms: raised and not cleared; None where the buffer cannot tell.
    """

    temperature_c: float | None
    throttled: bool | None
    undervoltage: bool | None
    on_mains: bool | None
    battery_share: float | None
    load_per_core: float | None
    local_minute: int
    open_streams: frozenset[str]
    alarms: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to train now.

    Attributes:
        closed: the first gate that is closed; None when training may go on.
        sentence: why it may not, for this machine's users.
        unread: gates whose state cannot be read here.
    """

    closed: Gate | None
    sentence: str
    unread: tuple[Gate, ...]


class Gates:
    """All gates of one device."""

    def __init__(self, config: GatesConfig) -> None:
        self._config = config
        self._closed: Gate | None = None
        self._shut: frozenset[Gate] = frozenset()
        self._sentence = ""
        self._open_since_s: float | None = None

    def judge(self, state: MachineState, now_s: float) -> Verdict:
        """Judge a reading; call it at any pace.

        Args:
            state: the reading.
            now_s: when it was taken, monotonic.
        """
        said = {gate: rule(self._config, state, gate in self._shut) for gate, rule in _RULES.items()}
        unread = [gate for gate, sentence in said.items() if sentence is None]
        shut = {gate: sentence for gate, sentence in said.items() if sentence}
        self._shut = frozenset(shut)
        for gate, sentence in shut.items():
            self._closed, self._sentence, self._open_since_s = gate, sentence, None
            return Verdict(gate, sentence, tuple(unread))
        if self._closed is not None:
            self._open_since_s = now_s if self._open_since_s is None else self._open_since_s
            if now_s - self._open_since_s < self._config.settle_s:
                return Verdict(self._closed, f"{self._sentence} until a moment ago", tuple(unread))
            self._closed = None
        return Verdict(None, "", tuple(unread))


def _temperature(config: GatesConfig, state: MachineState, closed: bool) -> str | None:
    if state.temperature_c is None:
        return None
    limit_c = config.temperature_c - (COOLER_C if closed else 0)
    too_warm = state.temperature_c > limit_c
    return f"temperature {state.temperature_c:.0f} C, limit {config.temperature_c:g}" if too_warm else ""


def _throttling(config: GatesConfig, state: MachineState, _closed: bool) -> str | None:
    if config.while_throttled:
        return ""
    if state.undervoltage:
        return "the supply's voltage is low"
    if state.throttled:
        return "the processor is throttled"
    return None if state.throttled is None and state.undervoltage is None else ""


def _power(config: GatesConfig, state: MachineState, closed: bool) -> str | None:
    if config.power == "any" or state.on_mains:
        return ""
    if state.on_mains is None:
        return "whether this device is on mains cannot be read"
    if config.power == "mains":
        return "on battery"
    if state.battery_share is None:
        return "on battery, and its charge cannot be read"
    least = config.battery_share + (FULLER if closed else 0)
    empty = state.battery_share <= least
    return f"battery {state.battery_share:.0%}, limit {config.battery_share:.0%}" if empty else ""


def _load(config: GatesConfig, state: MachineState, closed: bool) -> str | None:
    if state.load_per_core is None:
        return None
    limit = config.load_per_core * (QUIETER if closed else 1)
    return (
        f"load {state.load_per_core:.1f} per core, limit {config.load_per_core:g}"
        if (state.load_per_core > limit)
        else ""
    )


def _hours(config: GatesConfig, state: MachineState, _closed: bool) -> str | None:
    from bedside.core.policy.hours import within_hours  # the package of all rules

    inside = not config.hours or any(within_hours(text, state.local_minute) for text in config.hours)
    return "" if inside else f"trains between {' and '.join(config.hours)}"


def _session(config: GatesConfig, state: MachineState, _closed: bool) -> str | None:
    named = state.open_streams if ANY_STREAM in config.idle_streams else state.open_streams & set(config.idle_streams)
    return f"a session is open on {min(named)}" if named else ""


def _alarm(config: GatesConfig, state: MachineState, _closed: bool) -> str | None:
    if config.while_alarm:
        return ""
    if state.alarms is None:
        return None
    return "an alarm is raised" if state.alarms else ""


_RULES: Final[dict[Gate, Callable[[GatesConfig, MachineState, bool], str | None]]] = {
    "temperature": _temperature,
    "throttling": _throttling,
    "power": _power,
    "load": _load,
    "hours": _hours,
    "session": _session,
    "alarm": _alarm,
}
"""Why a gate is closed; empty when it is open, None when it cannot be read. The last argument is whether it was closed
last time: each gate for itself."""
