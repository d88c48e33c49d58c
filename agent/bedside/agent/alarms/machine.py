"""When an alarm is raised and cleared, and what may happen to it in between: two tables, without IO.

A *watch* is one rule on one stream. Its time is that of the signal: a hold-off of two seconds is two seconds of
windows past the limit, one after the other, however fast or late they arrive. What interrupts the signal (a gap, a
window that was dropped) begins the hold-off anew and leaves a raised alarm as it is, because silence is no sign that
things are well. The end of the session clears it: whoever comes next is another person.

Source: hysteresis and delay as in IEC 60601-1-8, 6.4; what is not in a table does not change anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, Protocol

from bedside.agent.buffer.rows import Alarm, Priority


class Limits(Protocol):
    """What is read of a rule (`bedside.agent.config.AlarmRule`)."""

    @property
    def above(self) -> float | None: ...
    @property
    def below(self) -> float | None: ...
    @property
    def clear(self) -> float | None: ...
    @property
    def hold_off_s(self) -> float: ...


class Phase(Enum):
    """Of a watch."""

    QUIET = auto()
    HOLDING = auto()
    """Past the limit, not for long enough yet."""
    ACTIVE = auto()


class Input(Enum):
    """What a watch hears."""

    PAST = auto()
    """The value is past the limit."""
    HELD = auto()
    """It is, and has been for the hold-off."""
    BETWEEN = auto()
    """It is back from the limit and not past `clear`."""
    BACK = auto()
    BREAK = auto()
    """The signal was interrupted."""
    END = auto()
    """The session has ended."""


class Act(Enum):
    """What comes of it."""

    NOTHING = auto()
    RAISE = auto()
    CLEAR = auto()


WATCH: Final[dict[tuple[Phase, Input], tuple[Act, Phase]]] = {
    (Phase.QUIET, Input.PAST): (Act.NOTHING, Phase.HOLDING),
    (Phase.QUIET, Input.HELD): (Act.RAISE, Phase.ACTIVE),
    (Phase.HOLDING, Input.HELD): (Act.RAISE, Phase.ACTIVE),
    (Phase.HOLDING, Input.BETWEEN): (Act.NOTHING, Phase.QUIET),
    (Phase.HOLDING, Input.BACK): (Act.NOTHING, Phase.QUIET),
    (Phase.HOLDING, Input.BREAK): (Act.NOTHING, Phase.QUIET),
    (Phase.HOLDING, Input.END): (Act.NOTHING, Phase.QUIET),
    (Phase.ACTIVE, Input.BACK): (Act.CLEAR, Phase.QUIET),
    (Phase.ACTIVE, Input.END): (Act.CLEAR, Phase.QUIET),
}
"""(phase, input) to (act, next phase)."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One value of a stream.

    Attributes:
        stretch: changes where the signal was interrupted.
        time_ns: of the end of the window, or of the record.
        value: probability or physical value; one that is not finite is not heard.
    """

    session: str
    stretch: int
    time_ns: int
    value: float


@dataclass(frozen=True, slots=True)
class Watch:
    """One rule on one stream.

    Attributes:
        session: that it watches; empty before the first.
        stretch: of the last observation; None before the first of this process.
        since_ns: from when on the value has been past the limit, while HOLDING.
        seen_ns: time of the last observation.
        horizon_ns: up to here this session was judged before the process was started; that is not heard again.
        ended: session that has ended, whose late observations are not heard.
    """

    phase: Phase = Phase.QUIET
    session: str = ""
    stretch: int | None = None
    since_ns: int = 0
    seen_ns: int = 0
    horizon_ns: int = 0
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """An alarm is to be raised or cleared, at a time of the signal."""

    act: Act
    time_ns: int
    value: float


def observe(rule: Limits, watch: Watch, seen: Observation) -> tuple[Watch, list[Effect]]:
    """Hear one value; return the watch after it, and what comes of it in order."""
    effects: list[Effect] = []
    if not math.isfinite(seen.value) or seen.session == watch.ended:
        return watch, effects
    if seen.session != watch.session:
        watch, effects = end(watch)
        watch = Watch(session=seen.session, ended=watch.ended)
    elif seen.time_ns <= watch.horizon_ns:
        return watch, effects
    elif seen.stretch != watch.stretch:
        watch, _ = _step(watch, Input.BREAK, watch.seen_ns, seen.value)
    since_ns = min(watch.since_ns, seen.time_ns) if watch.phase is Phase.HOLDING else seen.time_ns
    watch = replace(watch, stretch=seen.stretch, since_ns=since_ns, seen_ns=seen.time_ns)
    held = seen.time_ns - since_ns >= rule.hold_off_s * 1e9
    watch, effect = _step(watch, classify(rule, seen.value, held=held), seen.time_ns, seen.value)
    return watch, effects + effect


def end(watch: Watch) -> tuple[Watch, list[Effect]]:
    """The watch's session has ended, with its last observation."""
    after, effects = _step(watch, Input.END, watch.seen_ns, math.nan)
    return replace(after, session="", ended=watch.session or watch.ended), effects


def resume(last: Alarm) -> Watch:
    """The watch as the newest alarm of its rule and stream tells of it, after a start."""
    phase = Phase.QUIET if last.cleared_ns else Phase.ACTIVE
    judged_ns = max(last.raised_ns, last.cleared_ns)
    return Watch(phase, last.session, seen_ns=judged_ns, horizon_ns=judged_ns)


def classify(rule: Limits, value: float, *, held: bool) -> Input:
    """What a value is to a rule."""
    sign, limit = (1, rule.above) if rule.above is not None else (-1, rule.below)
    assert limit is not None  # noqa: S101  # `check_rules` has seen to it
    if sign * value >= sign * limit:
        return Input.HELD if held else Input.PAST
    clear = limit if rule.clear is None else rule.clear
    return Input.BACK if sign * value < sign * clear or clear == limit else Input.BETWEEN


def _step(watch: Watch, heard: Input, time_ns: int, value: float) -> tuple[Watch, list[Effect]]:
    act, phase = WATCH.get((watch.phase, heard), (Act.NOTHING, watch.phase))
    return replace(watch, phase=phase), [] if act is Act.NOTHING else [Effect(act, time_ns, value)]


class Life(Enum):
    """Of an alarm."""

    RAISED = auto()
    ESCALATED = auto()
    ACKNOWLEDGED = auto()
    CLEARED = auto()
    """Over, and nobody has seen it."""
    CLOSED = auto()
    """Over and seen."""


class Happens(Enum):
    """What happens to an alarm."""

    ESCALATE = auto()
    ACKNOWLEDGE = auto()
    CLEAR = auto()
    RELAPSE = auto()
    """The value is past the limit again, soon after."""


LIFE: Final[dict[tuple[Life, Happens], Life]] = {
    (Life.RAISED, Happens.ESCALATE): Life.ESCALATED,
    (Life.RAISED, Happens.ACKNOWLEDGE): Life.ACKNOWLEDGED,
    (Life.RAISED, Happens.CLEAR): Life.CLEARED,
    (Life.ESCALATED, Happens.ACKNOWLEDGE): Life.ACKNOWLEDGED,
    (Life.ESCALATED, Happens.CLEAR): Life.CLEARED,
    (Life.ACKNOWLEDGED, Happens.CLEAR): Life.CLOSED,
    (Life.CLEARED, Happens.ACKNOWLEDGE): Life.CLOSED,
    (Life.CLEARED, Happens.RELAPSE): Life.RAISED,
}
"""(life, what happens) to the life after it; an alarm that was escalated before it cleared relapses to that."""
RELAPSE_S: Final = 10.0
"""Seconds of signal behind clearing in which an alarm that nobody has seen is raised once more and no other is made: a
value that swings round its limit makes one alarm."""

_LOUDER: Final[dict[Priority, Priority]] = {"low": "medium", "medium": "high", "high": "high"}


def life_of(alarm: Alarm) -> Life:
    """Where an alarm stands, from its times."""
    if alarm.cleared_ns:
        return Life.CLOSED if alarm.acknowledged_ns else Life.CLEARED
    if alarm.acknowledged_ns:
        return Life.ACKNOWLEDGED
    return Life.ESCALATED if alarm.escalated_ns else Life.RAISED


def happen(alarm: Alarm, event: Happens, time_ns: int, by: str = "") -> Alarm | None:
    """The alarm after an event at `time_ns`; None where nothing changes by the table, or a relapse is late."""
    if (life_of(alarm), event) not in LIFE:
        return None
    time_ns = max(1, time_ns)  # 0 stands for never
    if event is Happens.CLEAR:
        return replace(alarm, cleared_ns=time_ns)
    if event is Happens.RELAPSE:
        soon = 0 <= time_ns - alarm.cleared_ns < RELAPSE_S * 1e9
        return replace(alarm, cleared_ns=0) if soon else None
    if event is Happens.ACKNOWLEDGE:
        return replace(alarm, acknowledged_ns=time_ns, acknowledged_by=by)
    return replace(alarm, escalated_ns=time_ns, priority=_LOUDER[alarm.priority])
