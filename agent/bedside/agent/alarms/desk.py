"""Alarms at work: what is decided and recorded goes in, and what a rule makes of it is stored and then told.

Invariants:
    * Nobody hears of an alarm, or of a change of one, before it is durable. What the disk refuses waits in memory, is
      tried again, and is told once it is there.
    * At most one alarm of a rule and stream is raised and not cleared at a time.
    * After a kill the table says what has been raised: the same event is not raised again.
    * The prediction that an alarm names is durable before it, so that its number is no other's.

Source: DESIGN section 4.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bedside.agent.alarms.machine import Act, Effect, Happens, Observation, Phase, Watch, end, happen, observe, resume
from bedside.agent.alarms.unwatched import Decider, unwatched
from bedside.agent.api.follow import AlarmFollowers
from bedside.agent.api.messages import alarm_message
from bedside.agent.buffer.alarms import AlarmTable
from bedside.agent.buffer.rows import Alarm
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import AlarmRule
from bedside.agent.inference.model import Decision
from bedside.core.clock import Clock
from bedside.core.errors import StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Record
from bedside.service.logs import event

_LOGGER = logging.getLogger(__name__)

MAX_WAITING: Final = 1_000
"""Changes that wait for the disk, some 200 bytes each; beyond that the oldest alarm that is over is dropped."""
RETRY_S: Final = 1.0
"""Seconds between two tries to store what waits."""

_Key = tuple[str, StreamId]


@dataclass(slots=True, eq=False)
class _Entry:
    """An alarm that is not over, or that waits for the disk.

    Attributes:
        escalates_s: monotonic time at which it is to be raised again, louder; None for never.
    """

    rule: AlarmRule
    alarm: Alarm
    escalates_s: float | None = None


class AlarmDesk:
    """One device's alarms. Use from one event loop.

    Attributes:
        store_error: why an alarm could not be stored; None while none waits.
        dropped: alarms that were over before they could be stored, and were too many to wait.
    """

    def __init__(
        self, rules: Sequence[AlarmRule], buffer: BufferStore, clock: Clock, followers: AlarmFollowers
    ) -> None:
        """Take up what the table holds; alarms whose rule is gone are cleared.

        Raises:
            StoreError: `store-read`.
        """
        self._rules = {rule.name: rule for rule in rules}
        self._buffer = buffer
        self._table = AlarmTable(buffer)
        self._clock = clock
        self._followers = followers
        self._watches: dict[_Key, Watch] = {}
        self._stretches: dict[tuple[_Key, str], int] = {}
        self._breaks: Counter[_Key] = Counter()
        self._open: dict[_Key, _Entry] = {}
        self._over: dict[_Key, _Entry] = {}  # the latest of each, which may relapse
        self._heard: set[str] = set()
        self._waiting: list[_Entry] = []
        self._tried_s = 0.0
        self.store_error: StoreError | None = None
        self.dropped = 0
        for alarm in self._table.latest():
            self._take_up(alarm)

    def change(self, rules: Sequence[AlarmRule]) -> None:
        """Go by these rules from now on, as after a restart: what others have raised is cleared, and the rest stays."""
        before, self._rules = self._rules, {rule.name: rule for rule in rules}
        touched = {name for name, rule in before.items() if self._rules.get(name) != rule}
        self._heard -= touched
        self._watches = {key: watch for key, watch in self._watches.items() if key[0] not in touched}
        self._stretches = {key: count for key, count in self._stretches.items() if key[0][0] not in touched}
        for key, entry in (*self._open.items(), *self._over.items()):
            if key[0] not in touched:
                continue
            rule = self._rules.get(key[0])
            if rule is None:
                self._clear(key, self._clock.now_ns())
                del self._over[key]
                continue
            entry.rule, entry.escalates_s = rule, None
            self._watches[key] = resume(entry.alarm)
            if not entry.alarm.cleared_ns:
                self._set_timer(entry)
        self._store()

    @property
    def waiting(self) -> int:
        """Alarms with a change that is not stored yet."""
        return len(self._waiting)

    def unwatched(
        self, deciders: Mapping[str, Decider], fed: Collection[str], *, patient: bool, modelless: bool
    ) -> list[str]:
        """Why rules cannot be raised; `patient` while a record may still be the first of its kind."""
        heard = self._rules.keys() if patient else self._heard
        return unwatched(self._rules.values(), deciders, fed, heard, modelless=modelless)

    def decided(self, name: str, decision: Decision, stretch: int, number: int) -> None:
        """Hold a decision of a slot, stored under a number, against the rules of its stream."""
        window = decision.window
        for rule in self._rules.values():
            if rule.field or rule.model not in ("", name) or rule.stream not in ("", window.stream):
                continue
            answer = decision.answer
            value = answer.probability(rule.label) if rule.label else answer.value(rule.output)
            if value is not None:
                stream = StreamId(window.stream)
                breaks = self._count_breaks((rule.name, stream), name, stretch)
                self._observe(rule, stream, Observation(window.session, breaks, window.end_ns, value), number)
        self._store()

    def recorded(self, record: Record, session: SessionId) -> None:
        """Hold a record against the rules of its stream."""
        for rule in self._rules.values():
            if rule.field in record.values and rule.stream in ("", record.stream):
                self._heard.add(rule.name)
                seen = Observation(session, 0, record.time_ns, record.values[rule.field])
                self._observe(rule, record.stream, seen, 0)
        self._store()

    def tick(self) -> None:
        """Do what time does: end what sessions have ended, escalate, and try the disk again."""
        now_s = self._clock.monotonic_s()
        for key, watch in self._watches.items():
            if watch.phase is not Phase.QUIET and watch.session != self._buffer.ahead.current(key[1]):
                after, effects = end(watch)
                self._watches[key] = after
                self._apply(key, watch.session, effects, 0)
        for entry in self._open.values():
            if entry.escalates_s is not None and now_s >= entry.escalates_s:
                entry.escalates_s = None
                self._change(entry, happen(entry.alarm, Happens.ESCALATE, self._clock.now_ns()))
        if not self.store_error or now_s - self._tried_s >= RETRY_S:
            self._store()

    def newest(self, limit: int, *, open_only: bool) -> Sequence[Alarm]:
        """The newest alarms that are durable, as they were raised.

        `open_only` leaves out what has cleared and has been seen.

        Raises:
            StoreError: `store-read`.
        """
        return self._table.newest(limit, open_only=open_only)

    def count_open(self) -> tuple[int, int]:
        """How many alarms are open, those that wait for the disk among them, and how many of these have not cleared.

        Raises:
            StoreError: `store-read`.
        """
        found, lasting = self._table.count_open()
        fresh = [entry.alarm for entry in self._waiting if not entry.alarm.number]
        return found + len(fresh), lasting + sum(not alarm.cleared_ns for alarm in fresh)

    def acknowledge(self, number: int, by: str) -> Alarm:
        """Note durably that somebody has seen an alarm, and tell it; a second time changes nothing.

        Raises:
            ProtocolError: `no-such-alarm`.
            StoreError: `store-write`; then it is as if nobody had said so.
        """
        held = next(
            (
                entry
                for entry in (*self._open.values(), *self._over.values(), *self._waiting)
                if entry.alarm.number == number
            ),
            None,
        )
        before = held.alarm if held is not None and number else self._table.find(number)
        after = happen(before, Happens.ACKNOWLEDGE, self._clock.now_ns(), by)
        if after is None:
            return before
        (stored,) = self._table.write([after])
        if stored is None:
            return self._table.find(number)  # erased in between: says so
        if held is not None:
            held.alarm = stored
        self._followers.publish(alarm_message(stored))
        return stored

    def _take_up(self, alarm: Alarm) -> None:
        key, rule = (alarm.rule, alarm.stream), self._rules.get(alarm.rule)
        if rule is not None:
            self._watches[key] = resume(alarm)
        if alarm.cleared_ns:
            if rule is not None:
                self._over[key] = _Entry(rule, alarm)
            return
        entry = self._open[key] = _Entry(rule or AlarmRule(name=alarm.rule), alarm)
        if rule is None:
            self._clear(key, self._clock.now_ns())
        else:
            self._set_timer(entry)

    def _count_breaks(self, key: _Key, name: str, stretch: int) -> int:
        """Interruptions so far of whatever a rule watches: stretches are counted by each model for itself."""
        if self._stretches.setdefault((key, name), stretch) != stretch:
            self._stretches[key, name] = stretch
            self._breaks[key] += 1
        return self._breaks[key]

    def _observe(self, rule: AlarmRule, stream: StreamId, seen: Observation, number: int) -> None:
        key = (rule.name, stream)
        self._watches[key], effects = observe(rule, self._watches.get(key, Watch()), seen)
        self._apply(key, seen.session, effects, number)

    def _apply(self, key: _Key, session: str, effects: Sequence[Effect], number: int) -> None:
        for effect in effects:
            if effect.act is Act.CLEAR:
                self._clear(key, effect.time_ns)
                continue
            if self._relapse(key, session, effect.time_ns):
                continue
            rule = self._rules[key[0]]
            alarm = Alarm(
                rule.name, key[1], SessionId(session), rule.priority, effect.time_ns, effect.value, prediction=number
            )
            entry = self._open[key] = _Entry(rule, alarm)
            self._change(entry, alarm)

    def _relapse(self, key: _Key, session: str, time_ns: int) -> bool:
        entry = self._over.pop(key, None)
        if entry is None or entry.alarm.session != session:
            return False
        after = happen(entry.alarm, Happens.RELAPSE, time_ns)
        if after is None:
            return False
        self._open[key] = entry
        self._change(entry, after)
        if after.number and entry.escalates_s is None:
            self._set_timer(entry)
        return True

    def _clear(self, key: _Key, time_ns: int) -> None:
        entry = self._open.pop(key, None)
        if entry is not None:
            self._over[key] = entry
            self._change(entry, happen(entry.alarm, Happens.CLEAR, max(time_ns, entry.alarm.raised_ns)))

    def _change(self, entry: _Entry, after: Alarm | None) -> None:
        if after is None:
            return
        entry.alarm = after
        if entry not in self._waiting:
            self._waiting.append(entry)
        if len(self._waiting) > MAX_WAITING:
            self._drop_one()

    def _drop_one(self) -> None:
        for entry in self._waiting:
            if entry.alarm.cleared_ns and not entry.alarm.number:
                self._waiting.remove(entry)
                self.dropped += 1
                self._buffer.count(entry.alarm.stream, entry.alarm.session, "dropped-alarms", 1)
                return

    def _store(self) -> None:
        """Commit what waits, then tell it."""
        if not self._waiting:
            return
        self._tried_s = self._clock.monotonic_s()
        try:
            self._buffer.ahead.settle(now=True)
            if any(entry.alarm.prediction and not entry.alarm.number for entry in self._waiting):
                self._buffer.flush()
            written = self._table.write([entry.alarm for entry in self._waiting])
        except StoreError as error:
            if self.store_error is None:
                event(_LOGGER, "alarm-waits", level=logging.ERROR, error=error)
            self.store_error = error
            return
        self.store_error = None
        told, self._waiting = self._waiting, []
        for entry, stored in zip(told, written, strict=True):
            if stored is None:  # its session was erased
                for entries in (self._open, self._over):
                    for key in [key for key, other in entries.items() if other is entry]:
                        del entries[key]
                continue
            fresh, entry.alarm = not entry.alarm.number, stored
            if fresh and not stored.cleared_ns:
                self._set_timer(entry)
            self._followers.publish(alarm_message(stored))

    def _set_timer(self, entry: _Entry) -> None:
        """Escalation counts from when the alarm could be heard, and anew from the start of the process."""
        if entry.rule.escalate_s > 0 and not entry.alarm.escalated_ns and not entry.alarm.acknowledged_ns:
            entry.escalates_s = self._clock.monotonic_s() + entry.rule.escalate_s
