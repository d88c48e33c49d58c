"""Payloads of devices that speak no standard: a JSON document, one number, packed samples."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Annotated, ClassVar, Final, Literal

import msgspec
import numpy as np

from bedside.agent.formats.payload.json_values import ABSENT, parse_path, read_json, value_at
from bedside.agent.formats.payload.mapping import Envelope, Found, Payload, PayloadReader, Refused, Row, Wave
from bedside.agent.formats.payload.packed import ByteOrder, PackedForm, SampleType
from bedside.agent.formats.tables.row_time import RowTime
from bedside.agent.kinds import option
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.samples import form_fault
from bedside.core.vocabulary.reading import MAX_WHAT_CHARS, Reading, Reason

MAX_NUMBER_BYTES: Final = 64
"""Bytes of a payload that is one number as text."""
MAX_ROWS: Final = 2_048
"""Records of one payload."""
MAX_CODES: Final = 256
"""Values that one record may have."""

_FLOAT_BITS: Final = 1_023
_NO_SAMPLES: Final = np.zeros((1, 1), np.float32)

TimeFormat = Literal["iso", "s", "ms", "us", "ns"]


class JsonPayload(Payload, frozen=True, kw_only=True, tag="json"):
    """A JSON document: values at fixed paths, or records of code, value and unit.

    Attributes:
        values: path of the value, by code.
        each: path of an array, each item of which is a record; empty = the document is one.
        time: path of a record's time; empty = it has none.
        code, value, unit: paths in a record that names its code itself.
    """

    values: Annotated[dict[str, str], option("path of the value, by code")] = msgspec.field(default_factory=dict)
    each: Annotated[str, option("path of an array of records")] = ""
    time: Annotated[str, option("path of the time")] = ""
    time_format: Annotated[TimeFormat, option("iso, s, ms, us or ns")] = "iso"
    code: Annotated[str, option("path of the code, in records that name it")] = ""
    value: Annotated[str, option("path of its value")] = ""
    unit: Annotated[str, option("path of its unit")] = ""

    @property
    def has_time(self) -> bool:
        return bool(self.time)

    def reader(self, time_zone: str, codes: Collection[str]) -> PayloadReader:
        del codes
        named = bool(self.code and self.value) and not self.values
        fixed = 0 < len(self.values) <= MAX_CODES and not (self.code or self.value or self.unit)
        if not (named or fixed):
            raise ConfigError(
                "payload",
                "a JSON payload takes either `values` (1 to 256 paths by code), or `code` and `value`",
                remedy="give one of the two",
            )
        return _JsonReader(self, RowTime(self.time_format, time_zone))


class NumberPayload(Payload, frozen=True, kw_only=True, tag="number"):
    """One number as text.

    Attributes:
        code: of the reading; `{1}` is what the first wildcard of the topic filter stands for.
        unit: of the reading, as a sender would write it.
    """

    code: Annotated[str, option("of the reading; {1} is the topic filter's first wildcard")]
    unit: Annotated[str, option("of the reading")] = ""

    @property
    def has_time(self) -> bool:
        return False

    def reader(self, time_zone: str, codes: Collection[str]) -> PayloadReader:
        del time_zone, codes
        return _NumberReader(self.unit)


class SamplesPayload(Payload, frozen=True, kw_only=True, tag="samples"):
    """Packed samples of a waveform, channel by channel within a sample.

    Attributes:
        time: unit of an unsigned 64-bit time of the first sample, which comes before the samples; empty = none.
    """

    waves: ClassVar[bool] = True

    rate_hz: Annotated[float, option("samples per second and channel")]
    dtype: Annotated[SampleType, option("int8, uint8, int16, uint16, int32 or float32")] = "int16"
    byte_order: Annotated[ByteOrder, option("little or big")] = "little"
    channels: Annotated[int, option("numbers per sample")] = 1
    scale: Annotated[float, option("physical value of one step")] = 1.0
    unit: Annotated[str, option("UCUM code")] = "1"
    metric: Annotated[str, option("MDC reference id")] = ""
    time: Annotated[Literal["", "s", "ms", "us", "ns"], option("unit of 64 bits of time before the samples")] = ""

    @property
    def has_time(self) -> bool:
        return bool(self.time)

    def reader(self, time_zone: str, codes: Collection[str]) -> PayloadReader:
        del time_zone, codes
        form = PackedForm(self.dtype, self.byte_order, self.channels, self.rate_hz, self.time)
        if fault := form_fault(_NO_SAMPLES, self.rate_hz, self.unit, self.metric, self.scale):
            raise ConfigError("payload", fault, remedy="correct the payload's description")
        return _SamplesReader(self, form)


class _JsonReader(PayloadReader):
    def __init__(self, payload: JsonPayload, time: RowTime) -> None:
        self._values = [(code, parse_path(path)) for code, path in payload.values.items()]
        self._each = parse_path(payload.each) if payload.each else None
        self._time_at = parse_path(payload.time) if payload.time else None
        self._time = time
        self._code_at, self._value_at, self._unit_at = (
            parse_path(path) if path else None for path in (payload.code, payload.value, payload.unit)
        )

    def read(self, data: bytes, envelope: Envelope) -> list[Found]:
        del envelope
        top = read_json(data)
        return [found for here in self._records(top) for found in self._record(top, here)]

    def _records(self, top: object) -> list[object]:
        if self._each is None:
            return [top]
        items = value_at(top, top, self._each)
        if not isinstance(items, list) or len(items) > MAX_ROWS:
            raise MalformedError("payload-form", f"there is no array of {MAX_ROWS} records at most where it should be")
        return items

    def _record(self, top: object, here: object) -> Iterator[Found]:
        readings = tuple(self._readings(top, here))
        if not readings:
            yield Refused(Reason.BAD_MESSAGE, "no-values^json")
            return
        time_ns = None
        if self._time_at is not None:
            with suppress(MalformedError):
                time_ns = self._time.ns(value_at(top, here, self._time_at))
        yield Row(time_ns, readings)

    def _readings(self, top: object, here: object) -> Iterator[Reading]:
        for code, path in self._values:
            value = value_at(top, here, path)
            if value is not ABSENT:
                yield Reading(code, _plain(value))
        if self._code_at is not None and self._value_at is not None:
            code, value = _text(value_at(top, here, self._code_at)), value_at(top, here, self._value_at)
            unit = _text(value_at(top, here, self._unit_at)) if self._unit_at else ""
            if code:
                yield Reading(code, None if value is ABSENT else _plain(value), unit=unit)


class _NumberReader(PayloadReader):
    def __init__(self, unit: str) -> None:
        self._unit = unit

    def read(self, data: bytes, envelope: Envelope) -> list[Found]:
        if len(data) > MAX_NUMBER_BYTES:
            raise MalformedError("payload-form", f"a number as text has {MAX_NUMBER_BYTES} bytes at most")
        try:
            text = data.decode("ascii").strip()
        except UnicodeDecodeError as error:
            raise MalformedError("payload-form", "a number is plain text") from error
        return [Row(None, (Reading(envelope.code, text or None, unit=self._unit),))]


class _SamplesReader(PayloadReader):
    def __init__(self, payload: SamplesPayload, form: PackedForm) -> None:
        self._payload = payload
        self._form = form

    def read(self, data: bytes, envelope: Envelope) -> list[Found]:
        del envelope
        time_ns, values = self._form.read(data)
        its = self._payload
        return [Wave(time_ns, its.rate_hz, values, its.unit, its.metric, its.scale)]


def _plain(value: object) -> float | str | None:
    """A JSON value as a reading has it; what is neither number nor text nor null is text that is no number."""
    if value is None or isinstance(value, str | float):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if value.bit_length() <= _FLOAT_BITS else math.inf
    return f"({type(value).__name__})"


def _text(value: object) -> str:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if len(text) <= MAX_WHAT_CHARS else text[: MAX_WHAT_CHARS + 1]
