"""Messages of personal health devices: what they measured and when, what they announce, and what is left out."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest

from bedside.agent.formats.delivery import Delivery, Moment
from bedside.agent.formats.ieee11073.apdu import MAX_APDU_BYTES, MAX_CONFIGURATIONS, ApduReader
from bedside.core.errors import MalformedError
from bedside.core.samples import Quality
from bedside.core.vocabulary.reading import Reading, Reason, Unusable

NOON = bytes.fromhex("2026030112003050")  # 2026-03-01 12:00:30.50, local to the device
AT_NOON = Moment(datetime(2026, 3, 1, 12, 0, 30, 500_000))  # noqa: DTZ001  # local


def u16(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}H", *numbers)


def octets(data: bytes) -> bytes:
    return u16(len(data)) + data


def listed(*items: bytes) -> bytes:
    return u16(len(items)) + octets(b"".join(items))


def attribute(number: int, value: bytes) -> bytes:
    return u16(number) + octets(value)


def apdu(choice: int, inside: bytes) -> bytes:
    return u16(choice) + octets(inside)


def data_apdu(operation: int, inside: bytes) -> bytes:
    return apdu(0xE700, octets(u16(7, operation) + octets(inside)))


def report(event: int, info: bytes, *, confirmed: bool = True) -> bytes:
    return data_apdu(0x0101 if confirmed else 0x0100, u16(0, 0xFFFF, 0xFFFF, event) + octets(info))


def scan(event: int, *observations: bytes, confirmed: bool = True) -> bytes:
    return report(event, u16(0xF000, 0) + listed(*observations), confirmed=confirmed)


def fixed(handle: int, values: bytes) -> bytes:
    return u16(handle) + octets(values)


def associate(configuration: int, system: bytes = b"12345678", protocol: int = 0x5079) -> bytes:
    info = bytes(18) + octets(system) + u16(configuration, 1, 0x0100, 0, 0)
    return apdu(0xE200, struct.pack(">I", 0x80000000) + listed(u16(protocol) + octets(info)))


def described(handle: int, *attributes: bytes, kind: int = 6) -> bytes:
    return u16(kind, handle) + listed(*attributes)


def announce(configuration: int, *objects: bytes) -> bytes:
    return report(3356, u16(configuration) + listed(*objects))


def layout(*entries: tuple[int, int]) -> bytes:
    return attribute(2645, listed(*(u16(*entry) for entry in entries)))


def after(*apdus: bytes) -> ApduReader:
    reader = ApduReader()
    for one in apdus:
        reader.read(one)
    return reader


def readings(delivery: Delivery) -> list[Reading]:
    return [reading for alike in delivery.readings.values() for reading in alike]


def test_an_oximeter_of_the_standard_configuration() -> None:
    reader = after(associate(400))
    delivery = reader.read(scan(3357, fixed(1, u16(98) + NOON), fixed(10, u16(72) + NOON)))
    assert delivery.readings == {
        AT_NOON: [
            Reading("150456", 98.0, "MDC", "262688", "1"),
            Reading("149530", 72.0, "MDC", "264864", "10"),
        ]
    }
    assert not delivery.left
    assert not delivery.event


def test_an_observation_without_a_time_is_of_now() -> None:
    delivery = after(associate(401)).read(scan(3357, fixed(1, u16(98)), confirmed=False))
    assert list(delivery.readings) == [Moment()]


def test_a_cuff_sends_three_pressures_in_one_value() -> None:
    values = u16(3, 6, 120, 80, 0x07FF) + NOON
    delivery = after(associate(700)).read(scan(3357, fixed(1, values), fixed(2, u16(0xF000 | 755) + NOON)))
    assert delivery.readings == {
        AT_NOON: [
            Reading("150021", 120.0, "MDC", "266016", "1"),
            Reading("150022", 80.0, "MDC", "266016", "1"),
            Reading("150023", None, "MDC", "266016", "1", valid=False),
            Reading("149546", 75.5, "MDC", "264864", "2"),
        ]
    }


@pytest.mark.parametrize(
    ("configuration", "value", "expected"),
    [
        (800, u16(0xF16E), Reading("150364", 36.6, "MDC", "268192", "1")),
        (1500, bytes.fromhex("FF0002FA"), Reading("188736", 76.2, "MDC", "263875", "1")),
        (1700, u16(0x0055), Reading("160184", 85.0, "MDC", "264274", "1")),
    ],
)
def test_thermometers_scales_and_glucose_meters(configuration: int, value: bytes, expected: Reading) -> None:
    delivery = ApduReader(configuration).read(scan(3357, fixed(1, value + NOON)))
    assert readings(delivery) == [expected]


@pytest.mark.parametrize("mantissa", [0x07FF, 0x07FE, 0x0800, 0x0801, 0x0802])
def test_what_is_no_number_has_no_value(mantissa: int) -> None:
    delivery = ApduReader(400).read(scan(3357, fixed(1, u16(mantissa))))
    assert readings(delivery) == [Reading("150456", None, "MDC", "262688", "1", valid=False)]


def test_an_announced_configuration_is_remembered_for_the_next_association() -> None:
    kind = attribute(2351, u16(2, 57680))
    bmi = described(3, kind, attribute(2454, u16(1952)), layout((2646, 4), (2448, 8)))
    reader = ApduReader()
    assert reader.read(associate(0x4000)).event == "asks to associate with configuration 16384, which is not known yet"
    assert reader.read(announce(0x4000, bmi)).event == "announces configuration 16384 of 1 objects"
    measured = scan(3357, fixed(3, bytes.fromhex("FF0000F3") + NOON))
    expected = [Reading("188752", 24.3, "MDC", "264096", "3")]
    assert readings(reader.read(measured)) == expected
    reader.read(apdu(0xE400, u16(0)))
    assert reader.read(measured).left == [Unusable(Reason.UNKNOWN_CODE, "object-3^20601")]
    assert reader.read(associate(0x4000)).event == "asks to associate with configuration 16384"
    assert readings(reader.read(measured)) == expected
    reader.read(associate(0x4000, b"another!"))  # a configuration of one's own is not another device's
    assert reader.read(measured).left == [Unusable(Reason.UNKNOWN_CODE, "object-3^20601")]


def test_the_oldest_configuration_is_forgotten() -> None:
    reader = ApduReader()
    for number in range(MAX_CONFIGURATIONS + 1):
        reader.read(announce(0x4000 + number, described(1)))
    assert reader.read(associate(0x4000, b"")).event.endswith("not known yet")
    assert not reader.read(associate(0x4001, b"")).event.endswith("not known yet")


def test_a_report_in_the_variable_form_says_its_unit_itself() -> None:
    observed = u16(1) + listed(
        attribute(2646, bytes.fromhex("FF000640")), attribute(2448, NOON), attribute(2454, u16(1760))
    )
    delivery = after(associate(1500)).read(scan(3358, observed))
    assert delivery.readings == {AT_NOON: [Reading("188736", 160.0, "MDC", "263904", "1")]}


def test_a_report_in_the_variable_form_may_say_what_it_measures() -> None:
    observed = u16(9) + listed(attribute(2351, u16(2, 20490)), attribute(2636, u16(14)))
    assert readings(ApduReader().read(scan(3358, observed))) == [Reading("151562", 14.0, "MDC", "", "9")]
    said = u16(1) + listed(attribute(2384, u16(19384, 0, 544) + struct.pack(">I", 97)))
    assert readings(ApduReader(1500).read(scan(3358, said))) == [Reading("150456", 97.0, "MDC", "262688", "1")]


@pytest.mark.parametrize(
    ("status", "valid", "quality"),
    [
        (0x8000, False, Quality.GOOD),
        (0x2000, False, Quality.GOOD),
        (0x1000, False, Quality.GOOD),
        (0x4000, True, Quality.GOOD),
        (0x0400, True, Quality.SIMULATED),
        (0x0800, True, Quality.SIMULATED),
    ],
)
def test_the_status_of_a_measurement(status: int, quality: Quality, *, valid: bool) -> None:
    observed = u16(1) + listed(attribute(2375, u16(status)), attribute(2636, u16(97)))
    delivery = ApduReader(400).read(scan(3358, observed))
    assert delivery.readings == {Moment(quality=quality): [Reading("150456", 97.0, "MDC", "262688", "1", valid=valid)]}


def test_a_time_with_its_offset() -> None:
    seconds = int((datetime(2026, 3, 1, 11, 0, tzinfo=UTC) - datetime(1900, 1, 1, tzinfo=UTC)).total_seconds())
    stamp = struct.pack(">IHh", seconds, 0x8000, 60)
    observed = u16(1) + listed(attribute(2690, stamp), attribute(2636, u16(97)))
    (moment,) = ApduReader(400).read(scan(3358, observed)).readings
    assert moment.time == datetime(2026, 3, 1, 11, 0, 0, 500_000, tzinfo=UTC)
    assert moment.time.isoformat() == "2026-03-01T12:00:00.500000+01:00"


@pytest.mark.parametrize(
    "stamp",
    [
        attribute(2448, bytes.fromhex("2026130112000000")),
        attribute(2448, bytes.fromhex("20260301120000FF")),
        attribute(2448, bytes(8)),
        attribute(2690, struct.pack(">IHh", 1, 0, -1_440)),
        attribute(2449, bytes(4)),
        attribute(2537, bytes(8)),
    ],
)
def test_a_time_that_no_calendar_has_is_told(stamp: bytes) -> None:
    observed = u16(1) + listed(stamp, attribute(2636, u16(97)))
    assert list(ApduReader(400).read(scan(3358, observed)).readings) == [Moment(bad=True)]


def test_people_who_share_a_device_have_no_bed() -> None:
    observations = listed(fixed(1, bytes.fromhex("FF0002FA") + NOON))
    delivery = ApduReader(1500).read(report(3359, u16(0xF000, 0) + listed(u16(2) + observations)))
    assert not delivery.readings
    assert delivery.left == [Unusable(Reason.UNKNOWN_PLACE, "188736^MDC [263875]")]
    delivery = ApduReader(1500).read(report(3359, u16(0xF000, 0) + listed(u16(0xFFFF) + observations)))
    assert len(readings(delivery)) == 1


def test_what_has_no_number_is_not_wanted() -> None:
    wave = described(4, attribute(2351, u16(2, 19380)), layout((2632, 6)), kind=9)
    reader = after(announce(0x4000, wave))
    assert reader.read(scan(3357, fixed(4, bytes(6)))).left == [Unusable(Reason.NOT_WANTED, "150452^MDC")]
    assert reader.read(report(3361, b"")).left == [Unusable(Reason.NOT_WANTED, "report-3361^20601")]


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (associate(400, protocol=0xFFFF), "asks to associate by another protocol"),
        (apdu(0xE300, u16(3)), "association accepted, configuration unknown"),
        (apdu(0xE300, u16(99)), "association answered in unknown words"),
        (apdu(0xE400, u16(1)), "asks to end the association, reason 1"),
        (apdu(0xE500, u16(0)), "association ended, reason 0"),
        (apdu(0xE600, u16(4)), "aborts, reason 4"),
        (data_apdu(0x0201, b""), "answers a report"),
        (data_apdu(0x0300, b""), "answers with an error"),
    ],
)
def test_what_a_message_of_the_protocol_says(message: bytes, event: str) -> None:
    delivery = ApduReader().read(message)
    assert delivery.event == event
    assert not delivery.readings
    assert not delivery.left


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xe7",
        apdu(0xE800, b""),
        apdu(0xE700, b""),
        data_apdu(0x0999, b""),
        apdu(0xE600, b""),
        apdu(0xE600, u16(0)) + b"\0",
        scan(3357, fixed(1, u16(98) + NOON))[:-1],
        scan(3357, fixed(1, u16(98) + NOON + b"\0")),
        scan(3357, fixed(1, b"\0")),
        scan(3358, u16(1) + listed(attribute(2448, b"\0"))),
        announce(0x4000, *(described(handle) for handle in range(300))),
        announce(0x4000, described(1, *([attribute(1, b"")] * 65))),
        apdu(0xE600, bytes(MAX_APDU_BYTES)),
    ],
)
def test_what_is_no_apdu_is_malformed(message: bytes) -> None:
    with pytest.raises(MalformedError):
        ApduReader(400).read(message)


def test_a_list_ends_where_its_length_says() -> None:
    message = bytearray(scan(3357, fixed(1, u16(98))))
    message[message.index(u16(1, 6)) + 1] = 4  # some devices count wrongly
    assert len(readings(ApduReader(400).read(bytes(message)))) == 1
