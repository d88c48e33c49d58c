"""The objects of a personal health device: what each of them measures, and how its observations are laid out.

Source: ISO/IEEE 11073-20601 (6.3 domain information model, annex A attributes), standard configurations of 11073-10404
(oximeter), -10407 (cuff), -10408 (thermometer), -10415 (scale), -10417 (glucose meter).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from bedside.agent.formats.ieee11073.mder import MderCursor
from bedside.core.errors import MalformedError
from bedside.core.vocabulary.mdc import PARTITION_SCADA

MAX_OBJECTS: Final = 256
"""Of one configuration: devices have ten."""
MAX_ATTRIBUTES: Final = 64


class Attribute(IntEnum):
    """Attribute ids of the object infrastructure partition that are read."""

    ID_PHYSIO = 2347
    ID_TYPE = 2351
    MSMT_STAT = 2375
    NU_CMPD_VAL_OBS = 2379
    NU_VAL_OBS = 2384
    TIME_STAMP_ABS = 2448
    TIME_STAMP_REL = 2449
    UNIT_CODE = 2454
    TIME_STAMP_REL_HI_RES = 2537
    NU_VAL_OBS_BASIC = 2636
    ATTRIBUTE_VAL_MAP = 2645
    NU_VAL_OBS_SIMP = 2646
    METRIC_ID_PART = 2655
    NU_CMPD_VAL_OBS_SIMP = 2676
    NU_CMPD_VAL_OBS_BASIC = 2677
    ID_PHYSIO_LIST = 2678
    TIME_STAMP_BO = 2690


@dataclass(frozen=True, slots=True)
class MeasuredObject:
    """One object of a configuration.

    Attributes:
        handle: that observations name it by.
        partition: of its codes.
        code: term of what it measures.
        parts: terms of the parts of a compound value, in their order.
        unit: term of the unit; 0 when it has none.
        layout: attribute and bytes of each part of an observation in the fixed form.
    """

    handle: int
    partition: int = PARTITION_SCADA
    code: int = 0
    parts: tuple[int, ...] = ()
    unit: int = 0
    layout: tuple[tuple[int, int], ...] = ()

    def with_attribute(self, attribute: int, value: bytes) -> MeasuredObject:
        """The object as an attribute describes it further; others change nothing.

        Raises:
            MalformedError: `bad-apdu`.
        """
        cursor = MderCursor(value)
        match attribute:
            case Attribute.ID_TYPE:
                return replace(self, partition=cursor.unsigned(2), code=cursor.unsigned(2))
            case Attribute.ID_PHYSIO:
                return replace(self, code=cursor.unsigned(2))
            case Attribute.METRIC_ID_PART:
                return replace(self, partition=cursor.unsigned(2))
            case Attribute.ID_PHYSIO_LIST:
                return replace(self, parts=tuple(item.unsigned(2) for item in cursor.items()))
            case Attribute.UNIT_CODE:
                return replace(self, unit=cursor.unsigned(2))
            case Attribute.ATTRIBUTE_VAL_MAP:
                return replace(self, layout=tuple((item.unsigned(2), item.unsigned(2)) for item in cursor.items()))
            case _:
                return self


Configuration = dict[int, MeasuredObject]
"""Objects by handle."""


def attributes(cursor: MderCursor) -> list[tuple[int, bytes]]:
    """An attribute list: ids and values.

    Raises:
        MalformedError: `bad-apdu`.
    """
    listed = [(item.unsigned(2), item.octets()) for item in cursor.items()]
    if len(listed) > MAX_ATTRIBUTES:
        raise MalformedError("bad-apdu", f"an object with {len(listed)} attributes; {MAX_ATTRIBUTES} at most")
    return listed


def read_configuration(cursor: MderCursor) -> Configuration:
    """The objects of a configuration report.

    Raises:
        MalformedError: `bad-apdu`.
    """
    objects: Configuration = {}
    for item in cursor.items():
        item.unsigned(2)  # class
        made = MeasuredObject(item.unsigned(2))
        for attribute, value in attributes(item):
            made = made.with_attribute(attribute, value)
        objects[made.handle] = made
        if len(objects) > MAX_OBJECTS:
            raise MalformedError("bad-apdu", f"a configuration of more than {MAX_OBJECTS} objects")
    return objects


_TIMED: Final = (Attribute.TIME_STAMP_ABS, 8)
_BASIC: Final = ((Attribute.NU_VAL_OBS_BASIC, 2), _TIMED)
_SIMPLE: Final = ((Attribute.NU_VAL_OBS_SIMP, 4), _TIMED)
_THREE: Final = ((Attribute.NU_CMPD_VAL_OBS_BASIC, 10), _TIMED)


def _standard(*objects: MeasuredObject) -> Configuration:
    return {one.handle: one for one in objects}


_OXIMETER: Final = _standard(
    MeasuredObject(1, code=19384, unit=544, layout=_BASIC), MeasuredObject(10, code=18458, unit=2720, layout=_BASIC)
)
STANDARD: Final[dict[int, Configuration]] = {
    400: _OXIMETER,
    401: _OXIMETER,
    700: _standard(
        MeasuredObject(1, code=18948, parts=(18949, 18950, 18951), unit=3872, layout=_THREE),
        MeasuredObject(2, code=18474, unit=2720, layout=_BASIC),
    ),
    800: _standard(MeasuredObject(1, code=19292, unit=6048, layout=_BASIC)),
    1500: _standard(MeasuredObject(1, code=57664, unit=1731, layout=_SIMPLE)),
    1700: _standard(MeasuredObject(1, code=29112, unit=2130, layout=_BASIC)),
}
"""By dev-config-id. An observation may end before its time: oximeters have it in one of their two configurations."""
