"""A Bluetooth Low Energy device of the standard health profiles, through BlueZ.

Intervals between heart beats go to a stream of their own, one record a beat, so that every row of a stream has the same
fields. Pairing is the operator's (`bluetoothctl`), never the agent's: who pairs decides whose data this is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from bedside.agent.formats.gatt import Report, decode_report
from bedside.agent.formats.tables.row_time import RowTime
from bedside.agent.kinds import require
from bedside.agent.sources.ble.beat_times import BeatTimes
from bedside.agent.sources.ble.link import BleLink, Notification, Peer
from bedside.agent.sources.kind import SourceContext, SourceKind, SourceOptions, option
from bedside.agent.sources.options import Fields, TimeZone, WhoseClock
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.ids import StreamId
from bedside.core.samples import Record, Unmapped
from bedside.core.vocabulary.clock_offset import ClockAhead, ClockOffset
from bedside.core.vocabulary.normaliser import Normaliser
from bedside.core.vocabulary.reading import Reason
from bedside.service.text import bounded

Profile = Literal["heart_rate", "pulse_oximeter", "thermometer", "blood_pressure"]

_PROFILES: Final[dict[Profile, tuple[int, tuple[int, ...]]]] = {
    "heart_rate": (0x180D, (0x2A37,)),
    "pulse_oximeter": (0x1822, (0x2A5F, 0x2A5E)),
    "thermometer": (0x1809, (0x2A1C,)),
    "blood_pressure": (0x1810, (0x2A35, 0x2A36)),
}
"""Service, and the characteristics that it notifies or indicates."""


class BleOptions(SourceOptions, frozen=True, kw_only=True):
    """A Bluetooth Low Energy device."""

    stream: Annotated[str, option("id of the stream")]
    profiles: Annotated[
        tuple[Profile, ...], option("heart_rate, pulse_oximeter, thermometer, blood_pressure: those that count")
    ]
    address: Annotated[str, option("AA:BB:CC:DD:EE:FF of the device")] = ""
    device: Annotated[str, option("its Bluetooth name, where its address changes")] = ""
    adapter: Annotated[str, option("hci0 or another, else the first")] = ""
    beat_stream: Annotated[str, option("id of the stream of beat intervals, else <stream>-rr")] = ""
    user: Annotated[int | None, option("of a cuff for several users, else all")] = None
    fields: Fields = msgspec.field(default_factory=dict)
    time_zone: TimeZone = "UTC"
    clock: WhoseClock = "sender"

    def streams(self) -> tuple[str, ...]:
        """The stream, and for a belt the one of its beat intervals."""
        beats = (self.beat_stream or f"{self.stream}-rr",) if "heart_rate" in self.profiles else ()
        return (self.stream, *beats)


class BleSource:
    """A `Source` on one device."""

    def __init__(self, options: BleOptions, context: SourceContext) -> None:
        self.name = options.name
        self._options = options
        self._gauge = context.gauge
        self._times = RowTime("iso", options.time_zone)
        self._sender = ClockOffset()
        self._ahead = ClockAhead()
        self._normaliser = Normaliser(options.name, options.fields)
        self._stream, self._beat_stream = (StreamId(options.streams()[place]) for place in (0, -1))
        self._beats = BeatTimes(context.last_end_ns(self._beat_stream))
        shown = options.address or bounded(options.device, 40)
        peer = Peer(shown, self._is_wanted, options.adapter, dict(_PROFILES[one] for one in options.profiles))
        self._link = BleLink(peer, context.clock, context.gauge, self._drop)

    async def events(self) -> AsyncIterator[Record | Unmapped]:
        """Yield records until the device goes away; see `BleLink.notifications` for the errors."""
        self._sender, self._gauge.clock_offset_s = ClockOffset(), None
        async with aclosing(self._link.notifications()) as notifications:
            async for notification in notifications:
                for event in self._read(notification):
                    yield event

    def _is_wanted(self, address: str, name: str) -> bool:
        if self._options.address:
            return address.lower() == self._options.address.lower()
        return name == self._options.device

    def _read(self, notified: Notification) -> list[Record | Unmapped]:
        what, arrived_ns = f"{notified.characteristic:04x}", notified.arrived_ns
        try:
            report = decode_report(notified.characteristic, notified.value)
        except MalformedError:
            return [Unmapped(self.name, Reason.BAD_MESSAGE, what, arrived_ns)]
        if self._options.user is not None and report.user not in (None, self._options.user):
            return [Unmapped(self.name, Reason.UNKNOWN_PLACE, f"{what}^other-user", arrived_ns, _count(report))]
        time_ns = self._time_ns(report, arrived_ns)
        if time_ns is None:
            return [Unmapped(self.name, Reason.BAD_TIME, what, arrived_ns, _count(report))]
        events = self._normaliser.events(self._stream, time_ns, report.readings, arrived_ns, report.quality)
        beats_ns = self._beats.of([float(beat.value or 0) for beat in report.intervals], time_ns)
        for beat_ns, beat in zip(beats_ns, report.intervals, strict=True):
            events += self._normaliser.events(self._beat_stream, beat_ns, (beat,), arrived_ns, report.quality)
        return events

    def _time_ns(self, report: Report, arrived_ns: int) -> int | None:
        """When it was measured; None when nobody can know."""
        if self._options.clock == "sender":
            if report.bad_time:
                return None
            if report.time is not None:
                return self._sent_ns(report.time, arrived_ns)
        return None if report.stored else arrived_ns

    def _sent_ns(self, sent: datetime, arrived_ns: int) -> int | None:
        try:
            time_ns = self._times.ns(sent)
        except MalformedError:
            return None
        if not self._ahead.takes(time_ns, arrived_ns):
            return None
        # what waited in the device looks delayed: the newest measurement tells the clocks apart
        self._sender.observe(time_ns, arrived_ns)
        self._gauge.clock_offset_s = self._sender.ahead_s
        return time_ns

    def _drop(self, notified: Notification) -> None:
        """Count what nobody took in time."""
        try:
            self._gauge.dropped += _count(decode_report(notified.characteristic, notified.value))
        except MalformedError:
            self._gauge.dropped += 1


def _count(report: Report) -> int:
    return len(report.readings) + len(report.intervals)


def _build(options: BleOptions, context: SourceContext) -> BleSource:
    def refuse(sentence: str, remedy: str) -> ConfigError:
        return ConfigError("source-config", f"source {options.name}: {sentence}", remedy=remedy)

    require("bleak", "bleak")
    if bool(options.address) == bool(options.device):
        raise refuse("a device has an address or a name", "give one of `address` and `device`")
    if not options.profiles:
        raise refuse("`profiles` is empty", "name what the device is")
    return BleSource(options, context)


KIND: Final = SourceKind(BleOptions, _build)
