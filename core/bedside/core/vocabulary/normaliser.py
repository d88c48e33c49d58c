"""From readings to one record and what had to be left out of it.

Invariants:
    * Nothing is guessed: a code, unit or status that is not known is left out with its reason.
    * A sentinel or an invalid reading is NaN in its field, which is a value of its own: the device has none.
    * readings in = values of the record + readings left out, exactly.

Source: DESIGN section 4; ISO/IEEE 11073-10101, UCUM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from bedside.core.ids import StreamId
from bedside.core.samples import Quality, Record, Unmapped
from bedside.core.vocabulary.reading import Measured, Reading, Unusable


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


class Normaliser:
    """Turns readings into records, by the fields of a configuration and the shared vocabulary."""

    def __init__(self, source: str, fields: Mapping[str, FieldRule] | None = None) -> None:
        """Prepare.

        Args:
            source: name of the source.
            fields: of the configuration, by name; what they do not take goes by the vocabulary.

        Raises:
            ConfigError: `source-config` for a field that contradicts itself.
        """
        self._source = source
        self._fields = dict(fields or {})

    def measure(self, reading: Reading) -> Measured | Unusable:
        """Understand one reading."""
        raise NotImplementedError

    def record(
        self,
        stream: StreamId,
        time_ns: int,
        readings: Sequence[Reading],
        arrived_ns: int,
        quality: Quality = Quality.GOOD,
    ) -> tuple[Record | None, list[Unmapped]]:
        """One record of readings of one time, and what is left out of it; None when nothing is understood."""
        raise NotImplementedError
