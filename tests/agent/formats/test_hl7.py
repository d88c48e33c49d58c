"""Reading and writing HL7 v2: delimiters, escapes, separators, character sets; acknowledgements and results."""

import hl7
import pytest

from bedside.agent.formats.hl7.acknowledgement import read_ack
from bedside.agent.formats.hl7.message import MAX_FIELDS, MAX_PARTS, read_head, read_message
from bedside.agent.formats.hl7.writing import Report, Result, Verdict, write_ack, write_reject, write_report
from bedside.core.errors import MalformedError

MSH = "MSH|^~\\&|MON^1^ISO|WARD|BED|HOSP|20260301080000+0100||ORU^R01^ORU_R01|77|P|2.6"
T0 = 1_772_352_000_250_000_000


def made(*segments: str, head: str = MSH, end: str = "\r", charset: str = "utf-8") -> bytes:
    return (end.join((head, *segments)) + end).encode(charset)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_segments_end_with_cr_lf_or_both(end) -> None:
    message = read_message(made("PID|||1||Nobody^No", "PV1||I|ICU^3^B", "OBX|1|NM|8867-4^^LN||61", end=end))
    assert [segment.name for segment in message.segments] == ["MSH", "PID", "PV1", "OBX"]
    assert message.segments[1].fields == ("PID",), "of a person it is known that it is there, and nothing else"
    assert message.segments[2].components(3) == ["ICU", "3", "B"]
    assert (message.header.kind, message.header.control_id, message.header.processing) == ("ORU^R01", "77", "P")


def test_where_segments_end_with_cr_a_lf_is_text_and_where_it_seems_to_begin_one_nothing_is_read() -> None:
    message = read_message(made("OBX|1|TX|x||see:\nbelow", "PV1||I|A"))
    assert [segment.name for segment in message.segments] == ["MSH", "OBX", "PV1"]
    for note in ("NTE|1||see:\nOBX|1|NM|8867-4^^LN||61", "PV1||I|A\nOBX|1|NM|8867-4^^LN||61"):
        with pytest.raises(MalformedError, match="hl7-form"):
            read_message(made(note))


def test_a_message_may_have_delimiters_of_its_own_and_leave_some_out() -> None:
    message = read_message(b"MSH$%~!&$A$$$$$$ORU%R01$1\rOBX$1$ST$a!S!b%c!F!d&e$$x~y!X41!\r")
    obx = message.segments[1]
    assert obx.components(3) == ["a%b", "c$d"]
    assert obx.repetitions(5) == ["x", "y!X41!"]
    assert obx.components_of("y!X41!!.br!z") == ["yA!.br!z"], "what is not understood stays: 7 and 2 are not 72"
    assert (obx.components_of("1&2%3"), obx.numbers_of("1&2%3")) == (["1", "3"], ["1&2", "3"])
    assert read_message(b"MSH|^~|A||||||ORU|1\rOBX|1|ST|a\\T\\b\r").segments[1].text(3) == "a&b"


def test_the_null_value_is_no_value() -> None:
    obx = read_message(made('OBX|1|NM|""^x|""|""')).segments[1]
    assert (obx.raw(4), obx.repetitions(5), obx.components(3)) == ("", [], ["", "x"])


@pytest.mark.parametrize(
    ("told", "charset", "default"),
    [
        ("UNICODE UTF-8", "utf-8", "ascii"),
        ("8859/1", "latin-1", "ascii"),
        ("8859/15", "iso8859-15", "ascii"),
        ("", "utf-8", "utf-8"),
        ("ASCII", "latin-1", "latin-1"),
        ("8859/1~8859/15", "latin-1", "ascii"),
        ("windows-1252", "cp1252", "ascii"),
    ],
)
def test_text_is_read_in_the_character_set_of_msh_18(told, charset, default) -> None:
    head = f"{MSH}||||||{told}"
    message = read_message(made("OBX|1|NM|x|||\u00b5V", head=head, charset=charset), default)
    assert (message.segments[1].text(6), message.replaced) == ("\u00b5V", 0)


@pytest.mark.parametrize("told", ["GB 18030-2000", "ISO IR87", "8859/1~ISO IR87", "UNICODE UTF-16", "BIG-5", "unheard"])
def test_a_set_in_which_a_delimiter_may_be_half_a_letter_is_refused_and_its_header_read(told) -> None:
    shifting = b"OBX|1|NM|hr^" + "\u3cc8".encode("gb18030") + b"^99LOC||72|/min"
    data = made(head=f"{MSH}||||||{told}") + shifting
    with pytest.raises(MalformedError, match="hl7-charset"):
        read_message(data)
    assert read_head(data).header.control_id == "77", "its sender is told which message it was"


@pytest.mark.parametrize("line", [" PID|||B", "pid|||B", "\t PV1||I|ICU^4", "pv1||I|ICU^4", "Pid^B", "\x00OBX|1|NM"])
def test_a_segment_that_is_almost_one_would_be_the_person_before(line) -> None:
    with pytest.raises(MalformedError, match="hl7-form"):
        read_message(made("PID|||A", "PV1||I|ICU^3", "OBX|1|NM|x||61", line, "OBX|2|NM|x||99"))
    assert read_message(made("PIDX|||A", "ZPI|PID|x")).first("PV1") is None


def test_bytes_that_are_not_of_the_character_set_are_replaced_and_counted() -> None:
    message = read_message(made("OBX|1|NM|x|||\u00b5V\u00b5", charset="latin-1"))
    assert (message.segments[1].text(6), message.replaced) == ("\ufffdV\ufffd", 2)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "hl7-header"),
        (b"PID|1\rMSH|^~\\&|\r", "hl7-header"),
        (b"MSH|^^^^|A||||||ORU|1", "hl7-header"),
        (b"MSHA^~\\&A", "hl7-header"),
        (b"MSH|^~\\&|A", "hl7-header"),
        (b"MSH|^~\\&|" + b"A" * 5_000 + b"||||||ORU|1", "hl7-header"),
        (made(MSH), "hl7-form"),
        (made("OBX" + "|" * MAX_FIELDS), "hl7-size"),
        (made("NTE\r" * 20_001), "hl7-size"),
        (b"MSH|" + b"A" * (1 << 20), "hl7-size"),
    ],
)
def test_what_is_no_message_is_malformed(data, code) -> None:
    with pytest.raises(MalformedError) as caught:
        read_message(data)
    assert caught.value.code == code


def test_parts_of_a_field_are_counted_before_it_is_split() -> None:
    obx = read_message(made("OBX|1|NA|x||" + "^" * MAX_PARTS + "|" + "~" * MAX_PARTS)).segments[1]
    for split in (lambda: obx.components(5), lambda: obx.repetitions(6)):
        with pytest.raises(MalformedError, match="hl7-size"):
            split()


def answer(head: str, verdict: Verdict = Verdict.ACCEPT, **options: str) -> bytes | None:
    return write_ack(read_message(made(head=head)), verdict, control_id="B1", now_ns=T0, **options)


def test_an_acknowledgement_names_the_message_and_swaps_the_parties() -> None:
    told = answer(MSH)
    assert told == (b"MSH|^~\\&|BED|HOSP|MON^1^ISO|WARD|20260301080000.250+0000||ACK^R01^ACK|B1|P|2.6\rMSA|AA|77\r")
    assert read_ack(told).accepted
    assert hl7.parse(told.decode()).segment("MSA")[2][0] == "77"


def test_a_refusal_says_why_in_the_delimiters_and_the_character_set_of_the_sender() -> None:
    head = "MSH$%~!&$A$B$C$D$1$$ADT%A01$9$T$2.5$$$$$$8859/1"
    told = answer(head, Verdict.REJECT, error="207", words="10% \u00b5 & more")
    assert told is not None
    assert b"ERR$$$207%Application internal error%HL70357$E$$$$10!S! \xb5 !T! more\r" in told
    said = read_ack(told)
    assert (said.code, said.control_id, said.words) == ("AR", "9", "10% \u00b5 & more")
    assert said.rejected
    assert not said.accepted


@pytest.mark.parametrize(
    ("accept", "application", "verdict", "code"),
    [
        ("", "", Verdict.ACCEPT, "AA"),
        ("NE", "AL", Verdict.ACCEPT, "AA"),
        ("NE", "ER", Verdict.ACCEPT, None),
        ("NE", "ER", Verdict.ERROR, "AE"),
        ("NE", "SU", Verdict.ACCEPT, "AA"),
        ("AL", "NE", Verdict.ACCEPT, "CA"),
        ("AL", "NE", Verdict.ERROR, "CE"),
        ("AL", "", Verdict.REJECT, "CR"),
        ("NE", "NE", Verdict.ACCEPT, None),
        ("XX", "XX", Verdict.ACCEPT, "AA"),
    ],
)
def test_the_sender_gets_the_kind_of_acknowledgement_that_it_asks_for(accept, application, verdict, code) -> None:
    told = answer(f"{MSH}|||{accept}|{application}", verdict)
    assert (read_ack(told).code if told is not None else None) == code


def test_what_names_no_message_is_rejected_without_a_name() -> None:
    said = read_ack(write_reject(control_id="B2", now_ns=T0, words="no MSH"))
    assert (said.code, said.control_id, said.words) == ("AR", "", "no MSH")
    with pytest.raises(MalformedError, match="hl7-ack"):
        read_ack(made())


def test_results_are_written_so_that_another_library_reads_them_back() -> None:
    results = [
        Result("8867-4", "LN", "Heart|rate^", 1e-05, "/min", T0, channel="1.7.4", flags=("H", "QUES")),
        Result("rhythm", "99BEDSIDE", "a~b\\c", "af & more\r", "", T0 + 10**9, "P"),
        Result("spo2", "99BEDSIDE", "SpO2", float("nan"), "%", T0),
    ]
    report = Report("id|1", T0, "dev&1", "ICU^3^B", results, receiver=("EHR", "H"))
    told = hl7.parse(write_report(report).decode())
    assert [str(segment[0]) for segment in told] == ["MSH", "PID", "PV1", "OBR", "OBX", "OBX", "OBX"]
    head, first, second, third = told.segment("MSH"), *told.segments("OBX")
    assert (str(head[5]), str(head[9]), str(head[16]), str(head[18])) == (
        "EHR",
        "ORU^R01^ORU_R01",
        "AL",
        "UNICODE UTF-8",
    )
    assert str(told.segment("PV1")[3]) == "ICU^3^B"
    assert told.unescape(str(head[10])) == "id|1"
    assert told.unescape(str(first[3][0][1][0])) == "Heart|rate^"
    assert [str(first[n]) for n in (2, 4, 5, 6, 8, 11, 14)] == [
        *("NM", "1.7.4", "0.00001", "/min^/min^UCUM", "H~QUES", "F", "20260301080000.250+0000")
    ]
    assert (str(second[2]), told.unescape(str(second[5])), str(second[11])) == ("ST", "af & more\r", "P")
    assert (str(third[5]), str(third[11])) == ("", "X")
    assert told.unescape(str(third[18])) == "dev&1"
    assert [str(told.segment("OBR")[n]) for n in (7, 8)] == ["20260301080000.250+0000", "20260301080001.250+0000"]
    again = read_message(write_report(report))
    assert [segment.text(5) for segment in again.segments if segment.name == "OBX"] == ["0.00001", "af & more\r", ""]


def test_without_a_place_nobody_is_named() -> None:
    report = Report("1", T0, "dev", "", [])
    assert [segment.name for segment in read_message(write_report(report)).segments] == ["MSH", "OBR"]
    assert b"PID" not in write_report(report)
