"""What becomes of a message of a broker: records, blocks, and what of it is left out.

Invariants:
    * A message that is sent again (DUP) after it was taken is not taken again: by its packet identifier and content
      within a process; after that, a record that is stored already is passed over by the store, and samples by their
      time.
    * Every reading is in a record, counted as unmapped, or a duplicate's.
    * What names something unmapped is of the configuration or a code: a topic may hold a name.

Source: MQTT 5.0, sections 3.3.1.1 (DUP) and 4.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bedside.agent.buffer.sessions import BY_HAND, UNSAID
from bedside.agent.formats.payload.mapping import Envelope, Found, PayloadReader, Refused, Row, Wave
from bedside.agent.mqtt.topics import TopicFilter, fill
from bedside.agent.sources.kind import SourceGauge
from bedside.agent.sources.mqtt.wave_clock import Placed, WaveClock
from bedside.agent.sources.nominal_time import NominalTime
from bedside.core.errors import MalformedError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Quality, Record, Unmapped, samples_per_block
from bedside.core.vocabulary.clock_offset import MAX_AHEAD_NS, ClockAhead, ClockOffset, plausible_time
from bedside.core.vocabulary.normaliser import Normaliser
from bedside.core.vocabulary.reading import Reason
from bedside.ondevice.windows.part import offset_ns

if TYPE_CHECKING:
    from bedside.agent.mqtt.client import Arrived

_REMEMBERED: Final = 1_024
"""Messages that are known when they come again: four times as many as may be in flight."""

_NO_TIME_NS: Final = -1
"""Of a message that should say its time and does not: no time at which anything can have been measured."""

Taken = Record | Block | Unmapped


@dataclass(frozen=True, slots=True)
class Route:
    """Where the messages of one topic filter go.

    Attributes:
        filter: what it takes.
        reader: of its payloads.
        kind: of its payloads.
        code: template of the code that a payload does not say.
        streams: by what the wildcard `wildcard` stands for; by an empty text where `wildcard` is 0.
        timed: the sender's time counts; else that of arrival.
        wildcard: number of the wildcard that chooses the stream; 0 = there is one stream.
    """

    filter: TopicFilter
    reader: PayloadReader
    kind: str
    code: str
    streams: Mapping[str, StreamId]
    wildcard: int
    timed: bool

    def stream(self, found: tuple[str, ...]) -> StreamId | None:
        """The stream of a topic; None when nobody has said which."""
        return self.streams.get(found[self.wildcard - 1] if self.wildcard else "")


class Intake:
    """Takes messages. It keeps what must be known of those before."""

    def __init__(
        self,
        name: str,
        routes: Sequence[Route],
        normaliser: Normaliser,
        gauge: SourceGauge,
        last_end_ns: Callable[[StreamId], int],
        open_session: Callable[[StreamId], tuple[int, str] | None],
    ) -> None:
        """Prepare.

        Args:
            name: of the source.
            routes: no two take the same topic.
            normaliser: makes records.
            gauge: of the source.
            last_end_ns: end of what is stored of a stream.
            open_session: begin and origin of the session that is open on a stream.
        """
        self._name = name
        self._routes = routes
        self._normaliser = normaliser
        self._gauge = gauge
        self._last_end_ns = last_end_ns
        self._open_session = open_session
        self._seen: dict[int, int] = {}
        self._waves: dict[StreamId, WaveClock] = {}
        self._arrivals: dict[StreamId, NominalTime] = {}
        self._ahead: dict[StreamId, ClockAhead] = {}
        self._offset = ClockOffset()

    def take(self, message: Arrived) -> list[Taken]:
        """What a message becomes; nothing when it was taken before."""
        if message.qos and self._is_known(message):
            self._gauge.duplicates += 1
            return []
        if message.retained:
            return [self._unmapped(Reason.NOT_WANTED, "message^retained", message)]
        for route in self._routes:
            found = route.filter.match(message.topic)
            if found is not None:
                return self._routed(message, route, found)
        return [self._unmapped(Reason.UNKNOWN_PLACE, "topic^unsubscribed", message)]

    def forget(self) -> None:
        """Take again what comes again; what is stored is known by its time."""
        self._seen.clear()
        self._waves.clear()

    def _is_known(self, message: Arrived) -> bool:
        """Whether it was taken before; from now on it was."""
        content = hash((message.topic, message.payload))
        known = self._seen.pop(message.number, None)
        self._seen[message.number] = content
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return message.again and known == content

    def _routed(self, message: Arrived, route: Route, found: tuple[str, ...]) -> list[Taken]:
        try:
            envelope = Envelope(message.arrived_ns, fill(route.code, found), message.topic)
            said = route.reader.read(message.payload, envelope)
        except MalformedError as error:
            return [self._unmapped(Reason.BAD_MESSAGE, f"{error.code}^{route.kind}", message)]
        stream = route.stream(found)
        if stream is None:
            return [self._unmapped(Reason.UNKNOWN_PLACE, route.filter.text, message, sum(map(_count, said)))]
        return [event for one in said for event in self._event(message, route, stream, one)]

    def _event(self, message: Arrived, route: Route, stream: StreamId, said: Found) -> Sequence[Taken]:
        if isinstance(said, Refused):
            return [self._unmapped(said.reason, said.what, message, said.count)]
        sent_ns = said.time_ns
        if sent_ns is not None and plausible_time(sent_ns, message.arrived_ns):
            self._offset.observe(sent_ns, message.arrived_ns)
            self._gauge.clock_offset_s = self._offset.ahead_s
        if not route.timed:
            sent_ns = None
        elif sent_ns is None:
            sent_ns = _NO_TIME_NS
        if isinstance(said, Wave):
            return self._blocks(message, stream, said, sent_ns)
        time_ns = message.arrived_ns if sent_ns is None else sent_ns
        return self._normaliser.events(stream, time_ns, said.readings, message.arrived_ns, said.quality)

    def _blocks(self, message: Arrived, stream: StreamId, wave: Wave, sent_ns: int | None) -> Sequence[Taken]:
        samples = len(wave.values)
        placed = self._place(message, stream, wave, sent_ns)
        if placed is None:
            return [self._unmapped(Reason.BAD_TIME, "samples", message, samples)]
        if placed.skip == samples and message.again:
            self._gauge.duplicates += 1
        else:
            self._gauge.dropped += placed.skip
        step = samples_per_block(wave.rate_hz)
        return [
            Block(
                stream,
                placed.start_ns + offset_ns(first - placed.skip, wave.rate_hz),
                wave.rate_hz,
                wave.values[first : first + step],
                wave.unit,
                wave.metric,
                wave.scale,
                Quality.GAP_BEFORE if placed.gap and first == placed.skip else Quality.GOOD,
            )
            for first in range(placed.skip, samples, step)
        ]

    def _place(self, message: Arrived, stream: StreamId, wave: Wave, sent_ns: int | None) -> Placed | None:
        """Where samples go on the time line of their stream; None when their time cannot be."""
        if sent_ns is None:
            if stream not in self._arrivals:
                self._arrivals[stream] = NominalTime(wave.rate_hz, self._last_end_ns(stream))
            start_ns, gap = self._arrivals[stream].place(len(wave.values), message.arrived_ns)
            return Placed(start_ns, 0, gap)
        ahead = self._ahead.setdefault(stream, ClockAhead())
        if not ahead.takes(sent_ns, message.arrived_ns) or self._is_another(stream, sent_ns):
            return None
        if stream not in self._waves:
            self._waves[stream] = WaveClock(self._last_end_ns(stream))
        if self._waves[stream].end_ns > message.arrived_ns + ahead.ns + MAX_AHEAD_NS:  # a clock ahead, and no more
            self._waves[stream] = WaveClock(0)
        return self._waves[stream].place(sent_ns, len(wave.values), wave.rate_hz)

    def _is_another(self, stream: StreamId, time_ns: int) -> bool:
        """Whether samples of that time are of whoever lay there before the one that a source has admitted."""
        opened = self._open_session(stream)
        return opened is not None and opened[1] not in (*UNSAID, *BY_HAND) and time_ns < opened[0]

    def _unmapped(self, reason: Reason, what: str, message: Arrived, count: int = 1) -> Unmapped:
        return Unmapped(self._name, reason, what, message.arrived_ns, count)


def _count(said: Found) -> int:
    """Readings or samples in it."""
    if isinstance(said, Row):
        return len(said.readings)
    return said.count if isinstance(said, Refused) else len(said.values)
