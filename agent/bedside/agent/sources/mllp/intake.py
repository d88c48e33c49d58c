"""From one HL7 message to records, blocks, marks and what had to be left out.

Invariants:
    * Every OBX is counted once: as values of a record, as samples of a block, as left out with a reason, or as an
      attribute of a waveform. A message without any counts as one where nothing becomes of it.
    * What is said of a place that has no stream is nobody's here. A late record finds the person of its time in the
      buffer; late signal has none.

Source: DESIGN section 4; HL7 v2.6 chapters 3 and 7.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from typing import Final, Literal

from bedside.agent.formats.hl7.adt import LEAVES, MOVES, Move, moved_at, moves
from bedside.agent.formats.hl7.message import Message
from bedside.agent.formats.hl7.observations import Observation, Visit, moments, readings_of, visits
from bedside.agent.formats.hl7.times import time_ns
from bedside.agent.formats.hl7.waves import Wave, waves
from bedside.agent.formats.hl7.whose import whose
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.mllp.bed_sessions import BedSessions, Lying
from bedside.agent.sources.mllp.beds import Bed, Beds
from bedside.agent.sources.options import WhoseClock
from bedside.core.errors import MalformedError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Event, Quality, Unmapped, samples_per_block
from bedside.core.vocabulary.clock_offset import FIRST_NS, ClockOffset, plausible_time
from bedside.core.vocabulary.mdc import unit_term
from bedside.core.vocabulary.normaliser import Normaliser
from bedside.core.vocabulary.reading import Reason, as_code
from bedside.core.vocabulary.ucum import ucum
from bedside.ondevice.windows.part import offset_ns

_TESTS: Final = frozenset({"T", "D"})
"""MSH-11: training and debugging."""

Left = Counter[tuple[Reason, str]]
Tests = Literal["leave-out", "simulated", "take"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How messages are read.

    Attributes:
        codes: that the configuration names; they are preferred where an OBX carries two.
        zone: of times without an offset.
        clock: whose clock dates what was measured.
        tests: what becomes of messages that MSH-11 marks as training or debugging.
    """

    codes: frozenset[str] = frozenset()
    zone: tzinfo = UTC
    clock: WhoseClock = "sender"
    tests: Tests = "leave-out"


_MOVE_AHEAD_NS: Final = 86_400_000_000_000
"""Nanoseconds: who comes by a clock in the wrong zone comes, and no later than that is told."""


@dataclass(slots=True)
class _Told:
    """One message under way."""

    message: Message
    arrived_ns: int
    quality: Quality
    offset: ClockOffset
    moved: tuple[Move, ...]
    events: list[Event] = field(default_factory=list)
    left: Left = field(default_factory=Counter)


class Intake:
    """Reads the messages of one source.

    Attributes:
        sessions: what ADT has said so far.
    """

    def __init__(
        self,
        name: str,
        beds: Beds,
        normaliser: Normaliser,
        rules: Rules,
        context: SourceContext,
        lying: Lying | None = None,
    ) -> None:
        self._name = name
        self._beds = beds
        self._normaliser = normaliser
        self._rules = rules
        self._context = context
        self.sessions = BedSessions(context.last_end_ns, context.open_session, lying)
        self._ends: dict[StreamId, int] = {}

    @property
    def told(self) -> dict[str, int]:
        """What ADT messages did not do, or did too late, in words for people."""
        sessions = self.sessions
        return {
            "old ADT messages ignored": sessions.ignored,
            "ADT messages of others who left": sessions.of_others,
            "admissions told late": sessions.late,
        }

    def take(self, message: Message, offset: ClockOffset, arrived_ns: int) -> list[Event]:
        """What a message says, in the order in which it is to be taken.

        Args:
            message: of any type.
            offset: of its sender's clock; it is told when this was sent.
            arrived_ns: when it came.

        Raises:
            MalformedError: it cannot be read to its end; nothing of it counts.
        """
        people, moved = visits(message), moves(message)
        self._observe_clock(message, offset, arrived_ns)
        testing = message.header.processing in _TESTS and self._rules.tests != "take"
        told = _Told(message, arrived_ns, Quality.SIMULATED if testing else Quality.GOOD, offset, moved)
        kind = message.header.kind
        observed = any(visit.observations for visit in people)
        if testing and self._rules.tests == "leave-out":
            count = sum(len(list(_kinds(visit.observations))) for visit in people)
            told.left[Reason.NOT_WANTED, f"MSH-11^{message.header.processing}"] += max(1, count)
        elif kind.partition("^")[0] not in ("ORU", "ADT") or not (observed or kind in MOVES):
            told.left[Reason.NOT_WANTED, "^".join(map(as_code, kind.split("^")))] += 1
        else:
            self._take_people(told, people, leaves=kind in LEAVES)
        unmapped = [Unmapped(self._name, why, what, arrived_ns, count) for (why, what), count in told.left.items()]
        return [*told.events, *unmapped]

    def _take_people(self, told: _Told, people: list[Visit], *, leaves: bool) -> None:
        """Who leaves is measured before, and who comes is measured after."""
        if not leaves:
            self._move(told)
        for visit in people:
            bed = self._beds.find(visit.place)
            if bed is None or self._is_shared(bed, visit, people):
                place = f"{as_code(self._beds.shown(visit.place))}^PV1-3"
                told.left[Reason.UNKNOWN_PLACE, place] += len(list(_kinds(visit.observations)))
            else:
                self._observe(told, bed, visit.observations)
        told.left = +told.left
        if leaves:
            self._move(told)

    def _is_shared(self, bed: Bed, visit: Visit, people: list[Visit]) -> bool:
        """Whether a message observes another person in one bed: whose it is cannot be told.

        A listener for one bed knows no places: whoever is not certainly the same, at the same place, is another.
        """
        others = [one for one in people if one.observations and one is not visit and self._beds.find(one.place) is bed]
        if self._beds.by_place:
            return any(one.whose.is_another(visit.whose) for one in others)
        return any(one.place != visit.place or not one.whose.is_same(visit.whose) for one in others)

    def _move(self, told: _Told) -> None:
        kind, who = told.message.header.kind, whose(told.message.segments)
        if kind in MOVES and not self._beds.by_place:  # whose it is cannot be told
            told.left[Reason.NOT_WANTED, kind] += 1
            return
        for move in told.moved:
            bed = self._beds.find(move.place)
            if bed is None:
                told.left[Reason.UNKNOWN_PLACE, kind] += 1
                continue
            try:
                at_ns = self._here(told, moved_at(told.message), _MOVE_AHEAD_NS, near=True)
            except MalformedError:
                told.left[Reason.BAD_TIME, kind] += 1
                continue
            if told.arrived_ns >= FIRST_NS:  # nobody comes later than that is told
                at_ns = min(at_ns, told.arrived_ns)
            told.events += self.sessions.marks(bed, move.kind, at_ns, who, takes_back=move.takes_back)

    def _observe(self, told: _Told, bed: Bed, observations: tuple[Observation, ...]) -> None:
        found, broken, rest = waves(observations)
        for array in broken:
            reason = Reason.NOT_WANTED if array.is_measured else Reason.BAD_STATUS
            told.left[reason, next(readings_of(array)).what] += 1
        for wave in found:
            self._take_wave(told, bed, wave)
        stream = StreamId(bed.stream)
        at_once, left = moments(rest, lambda text: self._here(told, text), self._rules.codes)
        told.left.update(left)
        for moment in at_once:
            quality = told.quality | (Quality.SIMULATED if moment.simulated else Quality.GOOD)
            told.events += self._normaliser.events(stream, moment.time_ns, moment.readings, told.arrived_ns, quality)

    def _take_wave(self, told: _Told, bed: Bed, wave: Wave) -> None:
        code = wave.observation.code(bed.waves)
        stream = bed.waves.get(code.name) or bed.waves.get(code.text)
        what = next(readings_of(wave.observation)).what
        unit = ucum(wave.observation.unit) or unit_term(wave.observation.unit)
        if stream is None or unit is None:
            told.left[Reason.NOT_WANTED if stream is None else Reason.UNKNOWN_UNIT, what] += 1
            return
        try:
            start_ns = self._here(told, wave.observation.time)
        except MalformedError:
            told.left[Reason.BAD_TIME, what] += 1
            return
        name = StreamId(stream)
        if self.sessions.is_another(name, start_ns):
            told.left[Reason.BAD_TIME, what] += 1
            return
        metric = code.text if code.text.startswith("MDC_") else ""
        quality = told.quality | (Quality.SIMULATED if wave.observation.is_simulated else Quality.GOOD)
        block = Block(name, start_ns, wave.rate_hz, wave.values, unit.code, metric, wave.scale, quality)
        told.events += self._following(block)

    def _following(self, block: Block) -> Iterator[Block]:
        """A block in pieces of 40 ms, where it follows what is stored; a sample's length of overlap is rounding."""
        end_ns = self._ends.setdefault(block.stream, self._context.last_end_ns(block.stream))
        if block.start_ns < end_ns - offset_ns(1, block.rate_hz):
            self._context.gauge.dropped += len(block.values)
            return
        start_ns = max(block.start_ns, end_ns)
        self._ends[block.stream] = start_ns + offset_ns(len(block.values), block.rate_hz)
        step = samples_per_block(block.rate_hz)
        for first in range(0, len(block.values), step):
            at_ns = start_ns + offset_ns(first, block.rate_hz)
            yield replace(block, start_ns=at_ns, values=block.values[first : first + step])

    def _here(self, told: _Told, text: str, ahead_ns: int = 0, *, near: bool = False) -> int:
        """A time of a message, on the clock that counts; that of its arrival where it says none.

        An hour that comes twice is none, but for a sender whose clock does not count, and for who comes and goes
        (`near`): of those the next to the arrival is believed, for who is not heard of at all has another's values.

        Args:
            told: the message.
            text: as sent.
            ahead_ns: how far more than other times it may lie ahead.
            near: an hour that comes twice is the one next to the arrival.

        Raises:
            MalformedError: `bad-time`.
        """
        if not text:
            return told.arrived_ns
        near = near or self._rules.clock == "arrival"
        at_ns = time_ns(text, self._rules.zone, told.arrived_ns if near else None)
        at_ns = told.offset.here_ns(at_ns) if self._rules.clock == "arrival" else at_ns
        if not plausible_time(at_ns, told.arrived_ns, told.offset.stays_ahead_ns + ahead_ns):
            raise MalformedError("bad-time", "nothing can have happened then")
        return at_ns

    def _observe_clock(self, message: Message, offset: ClockOffset, arrived_ns: int) -> None:
        try:
            near_ns = arrived_ns if self._rules.clock == "arrival" else None
            offset.observe(time_ns(message.header.time, self._rules.zone, near_ns), arrived_ns)
        except MalformedError:
            return  # a message without a time says nothing of its sender's clock
        self._context.gauge.clock_offset_s = offset.ahead_s


def _kinds(observations: Iterable[Observation]) -> Iterator[str]:
    """A name for each reading of observations; an array is one."""
    for one in observations:
        for reading in readings_of(one):
            yield reading.what
