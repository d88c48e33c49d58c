"""Payloads of the standards of hospitals: HL7 v2 results, FHIR R4 observations, APDUs of IEEE 11073."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import tzinfo
from typing import Annotated, Final

from bedside.agent.formats.delivery import Delivery, Moment
from bedside.agent.formats.fhir.observations import read_fhir
from bedside.agent.formats.hl7.message import Message, read_message
from bedside.agent.formats.hl7.observations import Observation, moments, readings_of, visits
from bedside.agent.formats.hl7.times import time_ns
from bedside.agent.formats.hl7.waves import waves
from bedside.agent.formats.ieee11073.apdu import ApduReader
from bedside.agent.formats.ieee11073.objects import STANDARD
from bedside.agent.formats.payload.mapping import Envelope, Found, Payload, PayloadReader, Refused, Row
from bedside.agent.formats.tables.row_time import RowTime, zone_of
from bedside.agent.kinds import option
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.samples import Quality
from bedside.core.vocabulary.reading import Reason, as_code

MAX_DEVICES: Final = 256
"""Topics whose devices' announcements are remembered; the one that was silent longest is forgotten."""

_NO_TIME: Final = -1
_TESTS: Final = frozenset({"T", "D"})


class Hl7Payload(Payload, frozen=True, kw_only=True, tag="hl7"):
    """A result, ORU^R01, of HL7 v2 without framing. Its waveforms are not taken: they come over MLLP."""

    def reader(self, time_zone: str, codes: Collection[str]) -> PayloadReader:
        return _Hl7Reader(zone_of(time_zone), frozenset(codes))


class FhirPayload(Payload, frozen=True, kw_only=True, tag="fhir"):
    """An Observation of FHIR R4, or a Bundle of them, in JSON or XML."""

    def reader(self, time_zone: str, codes: Collection[str]) -> PayloadReader:
        del codes
        return _FhirReader(RowTime("iso", time_zone))


class ApduPayload(Payload, frozen=True, kw_only=True, tag="apdu"):
    """An APDU of ISO/IEEE 11073-20601. What a device announces holds for its topic.

    Attributes:
        configuration: dev-config-id of devices whose association is not seen, a standard one; 0 = none.
    """

    configuration: Annotated[int, option("standard configuration of devices whose association is not seen")] = 0

    def reader(self, time_zone: str, codes: Collection[str]) -> PayloadReader:
        del codes
        if self.configuration and self.configuration not in STANDARD:
            known = ", ".join(map(str, STANDARD))
            raise ConfigError(
                "payload", f"there is no standard configuration {self.configuration}", remedy=f"known are {known}"
            )
        return _ApduReader(self.configuration, RowTime("iso", time_zone))


class _Hl7Reader(PayloadReader):
    def __init__(self, zone: tzinfo, codes: frozenset[str]) -> None:
        self._zone = zone
        self._codes = codes

    def read(self, data: bytes, envelope: Envelope) -> list[Found]:
        del envelope
        message = read_message(data)
        people = visits(message)
        observations = [one for visit in people for one in visit.observations]
        reason = _unwanted(message, len([visit for visit in people if visit.observations]))
        if reason is not None:
            names = [reading.what for one in observations for reading in readings_of(one)]
            return [Refused(reason, what) for what in names or [as_code(message.header.kind.replace("^", ":"))]]
        return list(self._results(observations))

    def _results(self, observations: list[Observation]) -> Iterator[Found]:
        found, broken, rest = waves(observations)
        for array in [*(wave.observation for wave in found), *broken]:
            yield Refused(Reason.NOT_WANTED, next(readings_of(array)).what)

        def place(text: str) -> int:
            return time_ns(text, self._zone) if text else _NO_TIME

        timed, left = moments(rest, place, self._codes)
        for reason, what in left:
            yield Refused(reason, what)
        for moment in timed:
            quality = Quality.SIMULATED if moment.simulated else Quality.GOOD
            yield Row(None if moment.time_ns == _NO_TIME else moment.time_ns, tuple(moment.readings), quality)


class _FhirReader(PayloadReader):
    def __init__(self, time: RowTime) -> None:
        self._time = time

    def read(self, data: bytes, envelope: Envelope) -> list[Found]:
        del envelope
        return list(_delivered(read_fhir(data), self._time))


class _ApduReader(PayloadReader):
    def __init__(self, configuration: int, time: RowTime) -> None:
        self._configuration = configuration
        self._time = time
        self._devices: OrderedDict[str, ApduReader] = OrderedDict()

    def read(self, data: bytes, envelope: Envelope) -> list[Found]:
        device = self._devices.pop(envelope.sender, None) or ApduReader(self._configuration)
        delivery = device.read(data)
        self._devices[envelope.sender] = device
        if len(self._devices) > MAX_DEVICES:
            self._devices.popitem(last=False)
        return list(_delivered(delivery, self._time))


def _unwanted(message: Message, people: int) -> Reason | None:
    """Why nothing of a message is taken; None when it is."""
    if message.header.kind.partition("^")[0] != "ORU" or message.header.processing in _TESTS:
        return Reason.NOT_WANTED
    return Reason.UNKNOWN_PLACE if people > 1 else None


def _delivered(delivery: Delivery, time: RowTime) -> Iterator[Found]:
    for unusable in delivery.left:
        yield Refused(unusable.reason, unusable.what)
    for moment, readings in delivery.readings.items():
        yield Row(_sent_ns(moment, time), tuple(readings), moment.quality)


def _sent_ns(moment: Moment, time: RowTime) -> int | None:
    if moment.bad or moment.time is None:
        return None
    with suppress(MalformedError):
        return time.ns(moment.time)
    return None
