"""What Bluetooth thermometers, belts, oximeters and cuffs notify: characteristics of the Bluetooth SIG, as readings.

Invariants:
    * FLOAT and SFLOAT specials (NaN, NRes, the infinities) are readings without a value, never numbers.
    * What the device itself calls invalid, or measured without contact, is a reading that is not valid.
    * Surplus bytes are malformed, unless a flag that these rules do not know may have announced them.

Source: Bluetooth GATT Specification Supplement; Heart Rate Service 1.0, Pulse Oximeter Service 1.0.1, Health
Thermometer Service 1.0, Blood Pressure Service 1.1.1; codes by the Personal Health Devices Transcoding White Paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from bedside.agent.formats.ieee11073.floats import decode_float, decode_sfloat
from bedside.core.errors import MalformedError
from bedside.core.samples import Quality
from bedside.core.vocabulary.reading import Reading

MAX_VALUE_BYTES: Final = 512
"""Of an attribute (Bluetooth Core, volume 3, part F, 3.2.9)."""

_PLACES: Final = ("", "armpit", "body", "ear", "finger", "gut", "mouth", "rectum", "toe", "tympanum")

# measurement status of an oximeter
_STORED, _DEMONSTRATION, _TEST, _CALIBRATION, _UNAVAILABLE, _INVALID = (1 << bit for bit in (9, 10, 11, 12, 13, 15))
# device and sensor status of an oximeter
_EQUIPMENT_BROKEN, _NOT_ON_USER, _UNKNOWN_SENSOR = 1 << 1, 1 << 11, 1 << 12
_DISPLACED, _SENSOR_BROKEN, _UNPLUGGED = (1 << bit for bit in (13, 14, 15))

_CUFF_TOO_LOOSE: Final = 1 << 1


@dataclass(frozen=True, slots=True)
class Report:
    """What one notification says.

    Attributes:
        readings: of one time.
        intervals: between heart beats, the oldest first, in seconds.
        quality: SENSOR_OFF without contact, SIMULATED for data of a demonstration.
        time: by the device's clock, in local time without an offset; None where it sends none or does not know it.
        bad_time: it sent a time that no calendar has.
        stored: it was measured earlier and kept.
        user: which of a cuff's users; None where it does not say.
    """

    readings: tuple[Reading, ...]
    intervals: tuple[Reading, ...] = ()
    quality: Quality = Quality.GOOD
    time: datetime | None = None
    bad_time: bool = False
    stored: bool = False
    user: int | None = None


def decode_report(characteristic: int, value: bytes) -> Report:
    """Read a notification.

    Args:
        characteristic: 16-bit UUID, one of `DECODERS`.
        value: as notified.

    Raises:
        MalformedError: `bad-gatt`.
    """
    if len(value) > MAX_VALUE_BYTES:
        raise MalformedError("bad-gatt", f"an attribute of {len(value)} bytes; {MAX_VALUE_BYTES} at most")
    cursor = _Cursor(value)
    flags = cursor.unsigned(1)
    known_flags, decode = DECODERS[characteristic]
    report = decode(cursor, flags)
    if cursor.left and not flags & ~known_flags:
        raise MalformedError("bad-gatt", f"{cursor.left} bytes more than the flags {flags:#04x} announce")
    return report


@dataclass(slots=True)
class _Cursor:
    """Little-endian fields, one after the other."""

    data: bytes
    at: int = 0
    time: datetime | None = field(default=None, init=False)
    bad_time: bool = field(default=False, init=False)

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def unsigned(self, size: int) -> int:
        if self.left < size:
            raise MalformedError("bad-gatt", f"{len(self.data)} bytes are fewer than the flags announce")
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "little")

    def sfloat(self) -> float | None:
        return decode_sfloat(self.unsigned(2))

    def timestamp(self) -> None:
        """Take a time of seven bytes; a year, month or day of zero says that the device does not know it."""
        year = self.unsigned(2)
        month, day, hour, minute, second = (self.unsigned(1) for _ in range(5))
        if not (year and month and day):
            return
        try:
            self.time = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 - its zone is configured
        except ValueError:
            self.bad_time = True


def _reading(code: str, value: float | None, unit: str, *, valid: bool = True, channel: str = "") -> Reading:
    return Reading(code, value, "MDC", unit, channel, valid and value is not None)


def _heart_rate(cursor: _Cursor, flags: int) -> Report:
    """Heart Rate Measurement, 0x2A37."""
    contact = flags & 0b110 != 0b100  # supported, and not detected
    readings = [_reading("147842", float(cursor.unsigned(2 if flags & 1 else 1)), "/min", valid=contact)]
    if flags & 1 << 3:
        readings.append(_reading("MDC_HF_ENERGY", float(cursor.unsigned(2)), "kJ"))
    intervals = []
    if flags & 1 << 4:
        while cursor.left >= 2:
            intervals.append(_reading("147240", cursor.unsigned(2) / 1024, "s", valid=contact))
        if cursor.left or not intervals:
            raise MalformedError("bad-gatt", "an interval between beats has two bytes")
    quality = Quality.GOOD if contact else Quality.SENSOR_OFF
    return Report(tuple(readings), tuple(intervals), quality)


def _spot_check(cursor: _Cursor, flags: int) -> Report:
    """PLX Spot-Check Measurement, 0x2A5E."""
    spo2, pulse = cursor.sfloat(), cursor.sfloat()
    if flags & 1:
        cursor.timestamp()
    status = cursor.unsigned(2) if flags & 2 else 0
    sensor = cursor.unsigned(3) if flags & 4 else 0
    index = (cursor.sfloat(),) if flags & 8 else ()
    report = _oximetry([("150456", spo2, "%"), ("149530", pulse, "/min")], index, status, sensor)
    if flags & 16:  # the clock is not set
        return report
    return _timed(report, cursor)


def _continuous(cursor: _Cursor, flags: int) -> Report:
    """PLX Continuous Measurement, 0x2A5F; the fast and slow averages have codes of their own."""
    values = [("150456", cursor.sfloat(), "%"), ("149530", cursor.sfloat(), "/min")]
    for flag, speed in ((1, "fast"), (2, "slow")):
        if flags & flag:
            values += [(f"spo2_{speed}", cursor.sfloat(), "%"), (f"pulse_rate_{speed}", cursor.sfloat(), "/min")]
    status = cursor.unsigned(2) if flags & 4 else 0
    sensor = cursor.unsigned(3) if flags & 8 else 0
    return _oximetry(values, (cursor.sfloat(),) if flags & 16 else (), status, sensor)


def _oximetry(
    values: list[tuple[str, float | None, str]], index: tuple[float | None, ...], status: int, sensor: int
) -> Report:
    off = bool(sensor & (_NOT_ON_USER | _DISPLACED | _UNPLUGGED))
    broken = bool(sensor & (_EQUIPMENT_BROKEN | _UNKNOWN_SENSOR | _SENSOR_BROKEN))
    valid = not (off or broken or status & (_CALIBRATION | _UNAVAILABLE | _INVALID))
    quality = Quality.SENSOR_OFF if off else Quality.GOOD
    if status & (_DEMONSTRATION | _TEST):
        quality |= Quality.SIMULATED
    readings = [
        Reading(code, value, "MDC" if code.isdigit() else "", unit, "", valid and value is not None)
        for code, value, unit in (*values, *(("150488", one, "%") for one in index))
    ]
    return Report(tuple(readings), quality=quality, stored=bool(status & _STORED))


def _temperature(cursor: _Cursor, flags: int) -> Report:
    """Temperature Measurement, 0x2A1C; the place is the reading's channel."""
    value = decode_float(cursor.unsigned(4))
    if flags & 2:
        cursor.timestamp()
    kind = cursor.unsigned(1) if flags & 4 else 0
    place = _PLACES[kind] if kind < len(_PLACES) else f"place-{kind}"
    return _timed(Report((_reading("150364", value, "[degF]" if flags & 1 else "Cel", channel=place),)), cursor)


def _blood_pressure(cursor: _Cursor, flags: int) -> Report:
    """Blood Pressure Measurement, 0x2A35."""
    return _cuff(cursor, flags, ("150021", "150022", "150023"))


def _intermediate_cuff(cursor: _Cursor, flags: int) -> Report:
    """Intermediate Cuff Pressure, 0x2A36: the pressure in the cuff; the two fields after it are not used."""
    return _cuff(cursor, flags, ("150300",))


def _cuff(cursor: _Cursor, flags: int, codes: tuple[str, ...]) -> Report:
    unit = "kPa" if flags & 1 else "mm[Hg]"
    pressures = [cursor.sfloat() for _ in range(3)]
    readings = [_reading(code, value, unit) for code, value in zip(codes, pressures, strict=False)]
    if flags & 2:
        cursor.timestamp()
    if flags & 4:
        readings.append(_reading("149546", cursor.sfloat(), "/min"))
    user = cursor.unsigned(1) if flags & 8 else None
    loose = bool(flags & 16 and cursor.unsigned(2) & _CUFF_TOO_LOOSE)
    quality = Quality.SENSOR_OFF if loose else Quality.GOOD
    return _timed(Report(tuple(readings), quality=quality, user=user), cursor)


def _timed(report: Report, cursor: _Cursor) -> Report:
    return replace(report, time=cursor.time, bad_time=cursor.bad_time)


DECODERS: Final[dict[int, tuple[int, Callable[[_Cursor, int], Report]]]] = {
    0x2A37: (0x1F, _heart_rate),
    0x2A5E: (0x1F, _spot_check),
    0x2A5F: (0x1F, _continuous),
    0x2A1C: (0x07, _temperature),
    0x2A35: (0x1F, _blood_pressure),
    0x2A36: (0x1F, _intermediate_cuff),
}
"""By the 16-bit UUID of the characteristic: the flags that are known, and what reads the rest."""
