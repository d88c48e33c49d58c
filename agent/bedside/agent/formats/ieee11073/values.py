"""Observations of personal health devices: attributes of one object at one time, as readings.

Source: ISO/IEEE 11073-20601 annex A.11 (numeric), A.2 (times); annex F for FLOAT and SFLOAT.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from bedside.agent.formats.delivery import Delivery, Moment
from bedside.agent.formats.ieee11073.floats import decode_float, decode_sfloat
from bedside.agent.formats.ieee11073.mder import MderCursor
from bedside.agent.formats.ieee11073.objects import Attribute, MeasuredObject
from bedside.core.samples import Quality
from bedside.core.vocabulary.mdc import PARTITION_DIM
from bedside.core.vocabulary.reading import Reading, Reason, Unusable

_INVALID, _NOT_AVAILABLE, _CALIBRATING, _TEST, _DEMO = 0x8000, 0x2000, 0x1000, 0x0800, 0x0400
"""Of a measurement's status: its first bit is the highest."""

_EPOCH: Final = datetime(1900, 1, 1, tzinfo=UTC)
_LAST_HOUR_MIN: Final = 24 * 60

_Value = tuple[int, float | None, int, int]
"""Term, value, term of the unit, status."""


def observe(measured: MeasuredObject, observed: Iterable[tuple[int, bytes]], delivery: Delivery) -> None:
    """Take one observation of an object into a delivery.

    Args:
        measured: what is known of the object.
        observed: attributes of the observation.
        delivery: takes its readings; what has no number is left as `not-wanted`.

    Raises:
        MalformedError: `bad-apdu`.
    """
    moment, status, values = Moment(), 0, list[_Value]()
    for attribute, data in observed:
        measured = measured.with_attribute(attribute, data)
        match attribute:
            case Attribute.TIME_STAMP_ABS:
                moment = absolute_time(data)
            case Attribute.TIME_STAMP_BO:
                moment = base_offset_time(data)
            case Attribute.TIME_STAMP_REL | Attribute.TIME_STAMP_REL_HI_RES if moment.time is None:
                moment = Moment(bad=True)  # since a start that nobody told
            case Attribute.MSMT_STAT:
                status = MderCursor(data).unsigned(2)
            case _:
                values += _values(measured, attribute, data)
    if not values:
        delivery.left.append(Unusable(Reason.NOT_WANTED, _what(measured)))
        return
    for code, value, unit, own in values:
        said = status | own
        quality = Quality.SIMULATED if said & (_TEST | _DEMO) else Quality.GOOD
        valid = value is not None and not said & (_INVALID | _NOT_AVAILABLE | _CALIBRATING)
        reading = Reading(
            _context_free(measured.partition, code or measured.code), value, "MDC",
            _context_free(PARTITION_DIM, unit or measured.unit), str(measured.handle), valid,
        )  # fmt: skip
        delivery.add(Moment(moment.time, moment.bad, quality), [reading])


def absolute_time(data: bytes) -> Moment:
    """A time in binary-coded decimals, local to the device: century, year, month, day, hour, minute, second, 1/100 s.

    Raises:
        MalformedError: `bad-apdu`.
    """
    digits = MderCursor(data).take(8).hex()
    if not digits.isdecimal():
        return Moment(bad=True)
    year, (month, day, hour, minute, second, part) = int(digits[:4]), (int(digits[n : n + 2]) for n in range(4, 16, 2))
    try:
        return Moment(datetime(year, month, day, hour, minute, second, part * 10_000))  # noqa: DTZ001  # local
    except ValueError:
        return Moment(bad=True)


def base_offset_time(data: bytes) -> Moment:
    """Seconds since 1900 and 1/65536 of them in UTC, and minutes to local time.

    Raises:
        MalformedError: `bad-apdu`.
    """
    cursor = MderCursor(data)
    seconds, part, offset = cursor.unsigned(4), cursor.unsigned(2), cursor.unsigned(2)
    minutes = offset - 0x10000 if offset >= 0x8000 else offset  # two's complement
    if abs(minutes) >= _LAST_HOUR_MIN:
        return Moment(bad=True)
    zone = timezone(timedelta(minutes=minutes))
    return Moment((_EPOCH + timedelta(seconds=seconds + part / 0x10000)).astimezone(zone))


def _values(measured: MeasuredObject, attribute: int, data: bytes) -> list[_Value]:
    cursor = MderCursor(data)
    match attribute:
        case Attribute.NU_VAL_OBS_BASIC:
            return [(0, decode_sfloat(cursor.unsigned(2)), 0, 0)]
        case Attribute.NU_VAL_OBS_SIMP:
            return [(0, decode_float(cursor.unsigned(4)), 0, 0)]
        case Attribute.NU_VAL_OBS:
            return [_told(cursor)]
        case Attribute.NU_CMPD_VAL_OBS:
            return [_told(item) for item in cursor.items()]
        case Attribute.NU_CMPD_VAL_OBS_BASIC:
            return _parts(measured, [decode_sfloat(item.unsigned(2)) for item in cursor.items()])
        case Attribute.NU_CMPD_VAL_OBS_SIMP:
            return _parts(measured, [decode_float(item.unsigned(4)) for item in cursor.items()])
        case _:
            return []


def _told(cursor: MderCursor) -> _Value:
    """NuObsValue: it says itself what it is."""
    code, status, unit = cursor.unsigned(2), cursor.unsigned(2), cursor.unsigned(2)
    return code, decode_float(cursor.unsigned(4)), unit, status


def _parts(measured: MeasuredObject, numbers: list[float | None]) -> list[_Value]:
    """Values of a compound; what its configuration gives no code keeps that of the whole, which nobody measures."""
    codes = measured.parts if len(measured.parts) == len(numbers) else (0,) * len(numbers)
    return [(code, number, 0, 0) for code, number in zip(codes, numbers, strict=True)]


def _context_free(partition: int, term: int) -> str:
    return str(partition << 16 | term) if term else ""


def _what(measured: MeasuredObject) -> str:
    code = _context_free(measured.partition, measured.code)
    return f"{code}^MDC" if code else f"object-{measured.handle}^20601"
