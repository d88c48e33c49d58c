"""The mixed stream of an Ivy 450C monitor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.agent.formats.ivy450c import MAX_PACKET_BYTES, NO_WAVE, WAVES, IvyDecoder, Packet, read_line
from bedside.core.errors import MalformedError
from ivy_packets import LINES, packet

DATA = Path(os.environ.get("BEDSIDE_DATA", Path(__file__).parents[4] / "shared" / "data"))
NOISE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\xff", b"\xfe", b"\xffANSAR-B ", packet()[:300], packet()[200:], bytes(MAX_PACKET_BYTES)]),
)


def counts(decoder: IvyDecoder) -> tuple[int, int, int, int]:
    return decoder.received_bytes, decoder.packet_bytes, decoder.skipped_bytes, decoder.damaged


def accounted(decoder: IvyDecoder) -> bool:
    waiting = len(decoder._waiting)
    return decoder.received_bytes == decoder.packet_bytes + decoder.skipped_bytes + waiting


@given(st.lists(st.one_of(NOISE, st.just(packet())), max_size=8), st.data())
def test_any_split_of_the_bytes_gives_the_same_and_every_byte_is_accounted_for(pieces, data) -> None:
    sent = b"".join(pieces)
    whole = IvyDecoder()
    expected = whole.feed(sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
    split, packets = IvyDecoder(), []
    for first, last in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        packets += split.feed(sent[first:last])
        assert accounted(split)
    assert packets == expected
    assert counts(split) == counts(whole)


def test_bytes_that_come_one_by_one_are_the_same() -> None:
    sent = packet()[100:] + packet(ecg=7) + b"noise" + packet(ecg=9) + bytes(MAX_PACKET_BYTES) + packet(ecg=11)
    whole, single = IvyDecoder(), IvyDecoder()
    expected = whole.feed(sent)
    assert [one for byte in sent for one in single.feed(bytes([byte]))] == expected
    assert counts(single) == counts(whole)
    assert [one.waves[0] for one in expected] == [8, 10, 12]


@given(st.integers(0, 561), st.integers(0, 255))
def test_one_wrong_byte_costs_one_packet_at_most(place: int, byte: int) -> None:
    wrong = bytearray(packet())
    wrong[place % len(wrong)] = byte
    decoder = IvyDecoder()
    packets = decoder.feed(packet(ecg=7) + wrong + packet(ecg=9))
    assert packets[0].waves[0] == 8
    assert packets[-1].waves[0] == 10
    assert len(packets) in (2, 3)
    assert accounted(decoder)


@pytest.mark.parametrize("place", [9, 150, 408])
def test_a_packet_that_lost_or_gained_a_byte_of_a_wave_is_skipped_whole(place: int) -> None:
    sent = packet()
    for wrong in (sent[:place] + sent[place + 1 :], sent[:place] + b"Q" + sent[place:]):
        decoder = IvyDecoder()
        assert decoder.feed(wrong + packet()) == [Packet(packet()[9:409], LINES)]
        assert (decoder.damaged, decoder.skipped_bytes) == (1, len(wrong))


def test_a_packet_without_an_end_is_given_up_and_the_next_one_read() -> None:
    decoder = IvyDecoder()
    assert len(decoder.feed(packet()[:-1] + packet())) == 1
    assert (decoder.damaged, decoder.skipped_bytes) == (1, len(packet()) - 1)
    decoder.feed(b"\xff" + bytes(10 * MAX_PACKET_BYTES))
    assert len(decoder._waiting) < MAX_PACKET_BYTES
    assert decoder.damaged == 2


def told(line: str) -> list[tuple[str, object, str, str, bool]]:
    return [(one.code, one.value, one.unit, one.channel, one.valid) for one in read_line(line)]


def test_lines_become_readings_with_codes_and_the_units_that_are_known() -> None:
    assert told("HR=1;72;ECG-II-DIAG;") == [("147842", "72", "/min", "", True)]
    assert told("RR=1;14;APNEA: 20 SEC;") == [("151562", "14", "/min", "", True)]
    assert told("ETCO2=1;38;;") == [("151708", "38", "", "", True)]
    assert told("SPO2=1;97;PR=71 ;") == [("150456", "97", "%", "", True), ("149530", "71", "/min", "", True)]
    assert told("T1=1;36.6;;") == [("150344", "36.6", "", "T1", True)]
    assert [one[:3] for one in told("NIBP=4;118;76;90;73;;")] == [
        ("150021", "118", "mm[Hg]"),
        ("150022", "76", "mm[Hg]"),
        ("150023", "90", "mm[Hg]"),
        ("149546", "73", "/min"),
    ]
    assert [one[1:] for one in told("P1=3;115;70;85;;")] == [
        (value, "mm[Hg]", "P1", True) for value in ("115", "70", "85")
    ]


@pytest.mark.parametrize("line", ["HR=1;;;", "HR=1; ;LEAD OFF;", "SPO2=1;;PR=;", "SPO2=1;;SENSOR;", "T2=1;;;"])
def test_an_empty_number_is_a_reading_without_a_value(line: str) -> None:
    assert all(one[1] is None and not one[4] for one in told(line))


def test_without_a_transducer_there_is_no_value_even_where_a_number_stands() -> None:
    assert [one[1:] for one in told("P2=3;0;0;0;NO TRANSDUCER;")] == [("0", "mm[Hg]", "P2", False)] * 3


@pytest.mark.parametrize("line", ["", "HR", "HR=1", "HR=1;72", "HR=1;72;;;;", "hr=1;72;;", "HR=1;7\x002;;", "P1=3;1;;"])
def test_a_line_of_another_form_is_malformed(line: str) -> None:
    with pytest.raises(MalformedError):
        read_line(line)


def test_a_line_that_is_not_known_gives_nothing() -> None:
    assert read_line("ICP=1;12;;") == []


@pytest.mark.parametrize(
    ("label", "lead"), [("ECG-II-DIAG", "II"), ("ECG-AVF-MON", "AVF"), ("ECG-V-MON", "V"), ("", "")]
)
def test_the_lead_of_the_ecg_is_what_its_label_says(label: str, lead: str) -> None:
    assert Packet(b"", (f"HR=1;72;{label};",)).lead == lead


def test_the_captured_monitor_is_read_to_the_last_byte() -> None:
    path = DATA / "device_fixtures" / "serial_ivy450c" / "Ivy450C.1.data"
    if not path.exists():
        pytest.skip(f"no capture at {path}")
    decoder = IvyDecoder()
    packets = decoder.feed(path.read_bytes())
    # it begins in the middle of a packet
    assert (len(packets), counts(decoder)) == (27, (15_426, 27 * 562, 252, 0))
    assert {packet.lead for packet in packets} == {"II"}
    for one in packets:
        readings = {(r.code, r.channel): r.value for line in one.lines for r in read_line(line)}
        assert readings["147842", ""] == "80"
        first, last = WAVES["p1"]
        pressure = one.waves[first:last]
        # the wave is in mmHg: its extremes are the numbers beside it
        assert abs(max(pressure) - int(readings["150017", "P1"] or 0)) <= 1
        assert min(pressure) == int(readings["150018", "P1"] or 0)
        first, last = WAVES["p2"]
        assert min(one.waves[first:last]) == NO_WAVE
