"""An Ivy Biomedical 450C monitor on a serial port: a stream a wave, and a record a second of the numbers on its screen.

The monitor sends no time: packets are placed one second after the other from the arrival of the first. A cuff's numbers
stay on its screen, and so in the records, until the next measurement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from bedside.agent.formats.ivy450c import HIGHEST, NO_WAVE, WAVES, IvyDecoder, Packet, line_name, read_line
from bedside.agent.sources.kind import SourceContext, SourceKind, SourceOptions, option
from bedside.agent.sources.nominal_time import NominalTime
from bedside.agent.sources.options import Fields
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Quality, Record, Unmapped, samples_per_block
from bedside.core.vocabulary.normaliser import FieldRule, Normaliser
from bedside.core.vocabulary.reading import Reading, Reason
from bedside.firmware_bridge.port import SerialPort

Wave = Literal["ecg", "resp", "pleth", "p1", "p2"]

_SILENT_S: Final = 5.0
"""A monitor sends every second; a cable that is pulled from it says nothing more."""
_SECOND_NS: Final = 1_000_000_000
_MIDDLE: Final = 128
"""Becomes zero in waves whose bytes have no unit."""
_PRESSURES: Final = frozenset({"p1", "p2"})
_METRICS: Final = {"pleth": "MDC_PULS_OXIM_PLETH", "p1": "MDC_PRESS_BLD", "p2": "MDC_PRESS_BLD"}

_PHASES: Final = (("150017", "systolic"), ("150018", "diastolic"), ("150019", "mean"))
_FIELDS: Final = {
    **{
        f"{place.lower()}_{phase}": FieldRule(code=code, system="MDC", channel=place, unit="mm[Hg]", low=-50, high=400)
        for place in ("P1", "P2")
        for code, phase in _PHASES
    },
    **{place.lower(): FieldRule(code="150344", system="MDC", channel=place, unit="Cel") for place in ("T1", "T2")},
}
"""Of numbers that come twice: where the transducers sit is for the configuration to say."""


class IvyOptions(SourceOptions, frozen=True, kw_only=True):
    """An Ivy Biomedical 450C monitor."""

    stream: Annotated[str, option("id of the stream of numbers; waves go to <stream>-ecg and so on")]
    port: Annotated[str, option("device file")]
    baud: Annotated[int, option("bits per second")] = 9_600
    waves: Annotated[tuple[Wave, ...], option("those to keep, of ecg, resp, pleth, p1, p2")] = (
        *("ecg", "resp", "pleth"),
        *("p1", "p2"),
    )
    fields: Fields = msgspec.field(default_factory=dict)

    def streams(self) -> tuple[str, ...]:
        """The numbers, and a stream a wave."""
        return (self.stream, *(f"{self.stream}-{wave}" for wave in self.waves))


class IvySource:
    """A `Source` on one monitor."""

    def __init__(self, options: IvyOptions, context: SourceContext) -> None:
        self.name = options.name
        self._options = options
        self._context = context
        self._stream = StreamId(options.stream)
        self._normaliser = Normaliser(options.name, _with_defaults(options.fields))
        self._time = NominalTime(1.0, max(context.last_end_ns(StreamId(one)) for one in options.streams()))

    async def events(self) -> AsyncIterator[Block | Record | Unmapped]:
        """Yield what every packet holds until the port is lost.

        Raises:
            UnavailableError: `serial-open`, `serial-silent`, `serial-lost`.
        """
        gauge = self._context.gauge
        decoder, damaged = IvyDecoder(), 0
        gauge.connected = False
        try:
            with SerialPort(self._options.port, self._options.baud) as port:
                while True:
                    packets = decoder.feed(await port.read(_SILENT_S, "monitor"))
                    arrived_ns = self._context.clock.now_ns()
                    if decoder.damaged > damaged:
                        lost = decoder.damaged - damaged
                        damaged = decoder.damaged
                        yield Unmapped(self.name, Reason.BAD_MESSAGE, "packet", arrived_ns, lost)
                    for place, packet in enumerate(packets, 1 - len(packets)):
                        gauge.connected = True
                        for event in self._read(packet, arrived_ns + place * _SECOND_NS, arrived_ns):
                            yield event
                    gauge.detail = f"{decoder.skipped_bytes} bytes skipped" if decoder.skipped_bytes else ""
        finally:
            gauge.connected = False

    def _read(self, packet: Packet, sent_ns: int, arrived_ns: int) -> list[Block | Record | Unmapped]:
        start_ns, gap = self._time.place(1, sent_ns)
        self._context.gauge.clock_offset_s = self._time.ahead_s
        events: list[Block | Record | Unmapped] = []
        for wave in self._options.waves:
            metric = _METRICS.get(wave, "")
            if wave == "ecg" and packet.lead:
                metric = f"MDC_ECG_ELEC_POTL_{packet.lead}"
            events += blocks_of(StreamId(f"{self._stream}-{wave}"), wave, packet, start_ns, metric, gap=gap)
        readings: list[Reading] = []
        for line in packet.lines:
            try:
                found = read_line(line)
            except MalformedError:
                events.append(Unmapped(self.name, Reason.BAD_MESSAGE, "line", arrived_ns))
                continue
            readings += found
            if not found:
                events.append(Unmapped(self.name, Reason.UNKNOWN_CODE, line_name(line), arrived_ns))
        return [*events, *self._normaliser.events(self._stream, start_ns + _SECOND_NS, readings, arrived_ns)]


def blocks_of(stream: StreamId, wave: Wave, packet: Packet, start_ns: int, metric: str, *, gap: bool) -> list[Block]:
    """A wave of a packet as blocks of 40 ms, int16; none of those in which there is no wave at all."""
    first, last = WAVES[wave]
    sent = np.frombuffer(packet.waves, np.uint8)[first:last]
    if sent.min() >= NO_WAVE:
        return []
    pressure = wave in _PRESSURES
    values = (sent.astype(np.int16) - (0 if pressure else _MIDDLE))[:, np.newaxis]
    step = samples_per_block(len(sent))
    blocks = []
    for at in range(0, len(sent), step):
        piece = sent[at : at + step]
        if piece.min() >= NO_WAVE:
            gap = True
            continue
        quality = Quality.GAP_BEFORE if gap else Quality.GOOD
        gap = False
        if piece.max() >= NO_WAVE:
            quality |= Quality.SENSOR_OFF
        elif not pressure and (piece.min() == 0 or piece.max() == HIGHEST):
            quality |= Quality.SATURATED
        blocks.append(
            Block(
                stream,
                start_ns + at * _SECOND_NS // len(sent),
                float(len(sent)),
                values[at : at + step],
                "mm[Hg]" if pressure else "1",
                metric,
                quality=quality,
            )
        )
    return blocks


def _with_defaults(fields: Mapping[str, FieldRule]) -> dict[str, FieldRule]:
    """The fields of the configuration, and ours for numbers of which it says nothing."""
    said = {(rule.code, rule.channel) for rule in fields.values()}
    ours = {name: rule for name, rule in _FIELDS.items() if not said & {(rule.code, rule.channel), (rule.code, "")}}
    return {**ours, **fields}


def _build(options: IvyOptions, context: SourceContext) -> IvySource:
    if len(set(options.waves)) < len(options.waves):
        raise ConfigError(
            "source-config", f"source {options.name}: a wave is named twice", remedy="name every wave once"
        )
    return IvySource(options, context)


KIND: Final = SourceKind(IvyOptions, _build)
