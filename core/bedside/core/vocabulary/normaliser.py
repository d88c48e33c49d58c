"""From readings to one record and what had to be left out of it.

Invariants:
    * Nothing is guessed: a code, unit or status that is not known is left out with its reason.
    * A sentinel or an invalid reading is NaN in its field, which is a value of its own: the device has none.
    * readings in = values of the record + readings left out, exactly.

Two readings that fall on one field are accounted so: of equal values (NaN gives way to a number) one is the record's
value, and each other is left out as `duplicate`; of different values none is, and all are left out as `ambiguous`, NaN
among them. A rule's `channel` says which one is meant.

Sentinels (-999, -99.9, -1, 8388607) stand for no value where the quantity cannot be that: outside its bounds, and -1
only for what is never negative. A field without bounds knows no sentinels but those of its rule.

A field that a rule names is filled by that rule alone: what the vocabulary would put there besides is `ruled-out`.

Source: DESIGN section 4; ISO/IEEE 11073-10101, UCUM; HL7 v2 table 0085 and FHIR's observation-status for statuses.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from bedside.core.errors import ConfigError
from bedside.core.ids import StreamId
from bedside.core.limits import MAX_FIELD_RULES, MAX_SIGNAL_TEXT_CHARS
from bedside.core.samples import Quality, Record, Unmapped
from bedside.core.vocabulary.clock_offset import ClockAhead
from bedside.core.vocabulary.mdc import Term, system_of, term_of, unit_term
from bedside.core.vocabulary.number import number_of
from bedside.core.vocabulary.quantities import QUANTITIES, Quantity
from bedside.core.vocabulary.reading import Measured, Reading, Reason, Unusable
from bedside.core.vocabulary.ucum import UNITS, Dimension, Unit, convert, convertible, ucum, word

SENTINELS: Final = frozenset({-999.0, -99.9, -1.0, 8388607.0})
"""What monitors send for "no value"; 8388607 is NaN of IEEE 11073's 32-bit float with its exponent lost."""

_CONTEXT_FREE_DIGITS: Final = 6
"""Of an MDC code with its partition, which is 2 for all that is measured; shorter ones may be anybody's own."""

_MEASURED: Final = frozenset({"", "f", "r", "final"})
"""Statuses, in small letters, of a value as measured: HL7's F (final) and R (as the device sent it), FHIR's final."""
_NO_RESULT: Final = frozenset({"x"})
"""HL7's X: results cannot be obtained."""


class FieldRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field of a record, as a source's option `fields` describes it.

    Attributes:
        code: of the readings that it takes; empty = its own name.
        system: coding system of that code; empty = any.
        channel: which of several alike; empty = any.
        unit: UCUM unit that the field has; empty = that of the vocabulary.
        sent_unit: UCUM unit of readings that come without one; empty = such readings are left out, unless the
            vocabulary's quantity has no unit.
        low: smallest possible value in `unit`; absent = that of the vocabulary.
        high: largest possible value.
        missing: values that stand for "no value", beside the known ones.
    """

    code: str = ""
    system: str = ""
    channel: str = ""
    unit: str = ""
    sent_unit: str = ""
    low: float | None = None
    high: float | None = None
    missing: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class _Target:
    """A field and what may be put into it."""

    field: str
    unit: Unit
    low: float = -math.inf
    high: float = math.inf
    signed: bool = True
    substance: str = ""
    sent_unit: Unit | None = None
    missing: frozenset[float] = frozenset()

    def unit_sent(self, text: str) -> Unit | None:
        """What a unit means here; None when that is unknown, or does not convert."""
        text = text.strip()
        if not text:
            return self.sent_unit
        sent = self.unit if text == self.unit.code else ucum(text) or unit_term(text) or word(text, self.unit.dimension)
        return sent if sent is not None and convertible(sent, self.unit, self.substance) else None


@dataclass(frozen=True, slots=True)
class _Rule:
    system: str
    channel: str
    target: _Target

    def takes(self, reading: Reading) -> bool:
        return self.system in {"", system_of(reading.system)} and self.channel in {"", reading.channel}


def _target(quantity: Quantity) -> _Target:
    unit = UNITS[quantity.unit]
    bare = unit if unit.code == "1" else None
    return _Target(quantity.field, unit, quantity.low, quantity.high, quantity.signed, quantity.substance, bare)


_TARGETS: Final = {field: _target(quantity) for field, quantity in QUANTITIES.items()}


class Normaliser:
    """Turns readings into records, by the fields of a configuration and the shared vocabulary."""

    def __init__(self, source: str, fields: Mapping[str, FieldRule] | None = None) -> None:
        """Prepare.

        Args:
            source: name of the source.
            fields: of the configuration, by name; what they do not take goes by the vocabulary.

        Raises:
            ConfigError: `source-config` for a field that contradicts itself or another.
        """
        self._source = source
        self._claimed = frozenset(fields or {})
        self._ahead: dict[StreamId, ClockAhead] = {}
        self._rules: dict[str, list[_Rule]] = {}
        if len(self._claimed) > MAX_FIELD_RULES:
            raise _contradiction(max(self._claimed), f"is one of {len(self._claimed)}; {MAX_FIELD_RULES} at most")
        for field, rule in (fields or {}).items():
            alike = self._rules.setdefault(rule.code or field, [])
            made = _Rule(system_of(rule.system), rule.channel, _ruled(field, rule))
            if any((made.system, made.channel) == (other.system, other.channel) for other in alike):
                raise _contradiction(field, f"takes the same readings as field {alike[0].target.field}")
            alike.append(made)
        for alike in self._rules.values():
            alike.sort(key=lambda rule: (not rule.channel, not rule.system))

    def measure(self, reading: Reading) -> Measured | Unusable:
        """Understand one reading."""
        targets = self._targets(reading)
        if isinstance(targets, Reason):
            return Unusable(targets, reading.what)
        status = reading.status.strip().casefold()
        if status not in _MEASURED and status not in _NO_RESULT:
            return Unusable(Reason.BAD_STATUS, reading.what)
        number = number_of(reading.value) if reading.valid and status not in _NO_RESULT else math.nan
        if number is None:
            return Unusable(Reason.NOT_A_NUMBER, reading.what)
        if math.isnan(number) or number in targets[0].missing:
            return _measured(targets[0], math.nan, reading)
        for target in targets:
            if sent := target.unit_sent(reading.unit):
                return _judged(target, number, convert(number, sent, target.unit, target.substance), reading)
        return Unusable(Reason.UNKNOWN_UNIT, reading.what)

    def record(
        self,
        stream: StreamId,
        time_ns: int,
        readings: Sequence[Reading],
        arrived_ns: int,
        quality: Quality = Quality.GOOD,
    ) -> tuple[Record | None, list[Unmapped]]:
        """One record of readings of one time, and what is left out of it; None when nothing is understood.

        Args:
            stream: that the record belongs to.
            time_ns: of the measurement, nanoseconds since 1970; one that cannot be leaves all readings out.
            readings: of that time; their order does not matter.
            arrived_ns: when they arrived here.
            quality: of the record; SENSOR_OFF is added when no field has a number.
        """
        if not self._ahead.setdefault(stream, ClockAhead()).takes(time_ns, arrived_ns):
            return None, self._left_out(((Reason.BAD_TIME, reading.what) for reading in readings), arrived_ns)
        left: list[tuple[Reason, str]] = []
        fields: dict[str, list[tuple[Measured, Reading]]] = {}
        for reading in readings:
            result = self.measure(reading)
            if isinstance(result, Unusable):
                left.append((result.reason, result.what))
            else:
                fields.setdefault(result.field, []).append((result, reading))
        values: dict[str, float] = {}
        units: dict[str, str] = {}
        for field, alike in fields.items():
            numbers = {one.value for one, _ in alike if not math.isnan(one.value)}
            if len(numbers) > 1:
                left += [(Reason.AMBIGUOUS, reading.what) for _, reading in alike]
                continue
            values[field], units[field] = numbers.pop() if numbers else math.nan, alike[0][0].unit
            left += [(Reason.DUPLICATE, reading.what) for _, reading in alike[1:]]
        unmapped = self._left_out(left, arrived_ns)
        if not values:
            return None, unmapped
        if all(math.isnan(value) for value in values.values()):
            quality |= Quality.SENSOR_OFF
        return Record(stream, time_ns, values, units, quality), unmapped

    def events(
        self,
        stream: StreamId,
        time_ns: int,
        readings: Sequence[Reading],
        arrived_ns: int,
        quality: Quality = Quality.GOOD,
    ) -> list[Record | Unmapped]:
        """The same as what a source yields: the record, if there is one, and behind it what is left out."""
        record, left_out = self.record(stream, time_ns, readings, arrived_ns, quality)
        return [*([record] if record is not None else ()), *left_out]

    def _targets(self, reading: Reading) -> tuple[_Target, ...] | Reason:
        """The fields that a code can mean, told apart by the unit; one at least."""
        rules = self._rules.get(reading.code, ())
        for rule in rules:
            if rule.takes(reading):
                return (rule.target,)
        term = term_of(reading.code, reading.system)
        if term is None:
            return Reason.RULED_OUT if rules else Reason.UNKNOWN_CODE
        free = tuple(_TARGETS[one.field] for one in term.quantities if one.field not in self._claimed)
        return free or (Reason.RULED_OUT if term.quantities else Reason.NOT_WANTED)

    def _left_out(self, left: Iterable[tuple[Reason, str]], arrived_ns: int) -> list[Unmapped]:
        counted = Counter(left).items()
        return [Unmapped(self._source, reason, what, arrived_ns, count) for (reason, what), count in counted]


def _measured(target: _Target, value: float, reading: Reading) -> Measured:
    term = term_of(reading.code, reading.system)
    return Measured(target.field, value, target.unit.code, term.reference if term else "")


def _judged(target: _Target, number: float, value: float, reading: Reading) -> Measured | Unusable:
    """A value within bounds; NaN for a sentinel beyond them."""
    if target.low <= value <= target.high and math.isfinite(value):
        return _measured(target, value, reading)
    if number in SENTINELS and not (number == -1 and target.signed):
        return _measured(target, math.nan, reading)
    return Unusable(Reason.OUT_OF_RANGE, reading.what)


def _ruled(field: str, rule: FieldRule) -> _Target:
    """What a rule makes of its field, on top of what the vocabulary says of it.

    Raises:
        ConfigError: `source-config`.
    """
    if not 1 <= len(field) <= MAX_SIGNAL_TEXT_CHARS or not field.isprintable():
        raise _contradiction(field[:MAX_SIGNAL_TEXT_CHARS], f"needs a name of 1 to {MAX_SIGNAL_TEXT_CHARS} characters")
    term = _term(rule.code or field, rule.system)
    known = [QUANTITIES[field]] if field in QUANTITIES else list(term.quantities if term else ())
    wanted = _unit(field, rule.unit) if rule.unit else None
    fitting = [_TARGETS[one.field] for one in known if wanted is None or convertible(UNITS[one.unit], wanted)]
    if known and not fitting:
        raise _contradiction(field, f"is measured in {known[0].unit}, which does not convert to {rule.unit}")
    base = fitting[0] if fitting else _Target(field, wanted or UNITS["1"])
    unit = wanted or base.unit
    low = convert(base.low, base.unit, unit, base.substance) if rule.low is None else rule.low
    high = convert(base.high, base.unit, unit, base.substance) if rule.high is None else rule.high
    if not low < high:
        raise _contradiction(field, "has no values: its `low` is not below its `high`")
    sent = _unit(field, rule.sent_unit) if rule.sent_unit else unit if unit.code == "1" else None
    if sent is not None and not convertible(sent, unit, base.substance):
        raise _contradiction(field, f"cannot be sent in {sent.code}: that does not convert to {unit.code}")
    signed = base.signed if known and rule.low is None else low < 0
    return _Target(field, unit, low, high, signed, base.substance, sent, frozenset(rule.missing))


def _term(code: str, system: str) -> Term | None:
    """What a rule's code stands for; without a system a context-free MDC code and a LOINC code say it themselves."""
    if system or len(code) < _CONTEXT_FREE_DIGITS:
        return term_of(code, system)
    return term_of(code, "") or term_of(code, "MDC") or term_of(code, "LN")


def _unit(field: str, text: str) -> Unit:
    if len(text) > MAX_SIGNAL_TEXT_CHARS or not text.isprintable():
        raise _contradiction(field, f"has a unit that is no visible text of {MAX_SIGNAL_TEXT_CHARS} characters at most")
    return ucum(text) or Unit(text, Dimension.OTHER)


def _contradiction(field: str, why: str) -> ConfigError:
    return ConfigError(
        "source-config",
        f"field {field!r} {why}",
        remedy="mend [sources.options.fields]: units are UCUM codes, such as /min, mm[Hg], Cel, %",
    )
