"""Whose a session is: late discharges, swaps of beds, moves that are taken back, and two people in one message."""

import pytest

from bedside.agent.formats.hl7.message import read_message
from bedside.agent.formats.hl7.whose import Pseudonyms, Whose, whose
from bedside.core.samples import MarkKind
from hl7_ward import HEAD, HIDE, NS, T0, Ward, evn, hr, left, marks, records

OPEN, CLOSE = MarkKind.SESSION_OPEN, MarkKind.SESSION_CLOSE
BEDS = {"ICU^2": "b2", "ICU^3": "b3"}
LATE = {"arrived_ns": T0 + 900 * NS}


def adt(ward: Ward, kind: str, second: int, bed: str, *, who: str = "", visit: str = "", before: str = "") -> list:
    pv1 = f"PV1||I|{bed}|||{before}" + "|" * 13 + visit
    return marks(ward.take(evn(second), f"PID|||{who}^^^HOSP^MR~X1||No^Body", pv1, kind=f"ADT^{kind}", **LATE))


def test_numbers_of_people_are_kept_as_hashes_and_only_where_that_is_asked_for() -> None:
    data = "\r".join((HEAD.format(kind="ADT^A01", id=1), "PID|||471199^^^H||No^Body", "PV1" + "|" * 19 + "VN88\r"))
    kept = read_message(data.encode(), hide=HIDE)
    assert not any(
        word in repr(message) for message in (kept, read_message(data.encode())) for word in ("4711", "VN88")
    )
    assert "Body" not in repr(kept)
    assert whose(read_message(data.encode()).segments) == Whose()
    found = whose(kept.segments)
    assert found == Whose(HIDE("visit", "VN88"), HIDE("patient", "471199"))
    assert found != whose(read_message(data.encode(), hide=Pseudonyms(bytes(31) + b"1").of).segments)
    assert HIDE("visit", "1") != HIDE("patient", "1")


def test_visits_count_before_patients_and_without_numbers_nothing_is_certain() -> None:
    one, other = Whose("v1", "p1"), Whose("v2", "p1")
    assert one.is_another(other)
    assert not one.is_same(other)
    assert Whose("", "p1").is_same(one)
    assert Whose("", "p2").is_another(one)
    for nobody in (Whose(), Whose("v1", "")):
        assert not nobody.is_another(Whose("", "p1"))
        assert not nobody.is_same(Whose("", "p1"))


@pytest.mark.parametrize(("a", "b"), [({"who": "A"}, {"who": "B"}), ({"visit": "1"}, {"visit": "2"})])
def test_a_late_discharge_of_who_lay_there_before_closes_nothing(a, b) -> None:
    ward = Ward(BEDS)
    adt(ward, "A01", 100, "ICU^2", **a)
    assert adt(ward, "A01", 300, "ICU^2", **b) == [("b2", OPEN, 300)]
    assert adt(ward, "A03", 400, "ICU^2", **a) == []
    assert (ward.intake.sessions.of_others, ward.intake.told["ADT messages of others who left"]) == (1, 1)
    assert adt(ward, "A03", 500, "ICU^2", **b) == [("b2", CLOSE, 500)]


def test_without_numbers_whoever_leaves_is_who_lies_there() -> None:
    ward = Ward(BEDS)
    adt(ward, "A01", 100, "ICU^2", who="A")
    assert adt(ward, "A03", 400, "ICU^2") == [("b2", CLOSE, 400)]
    assert adt(ward, "A03", 500, "ICU^2", who="A") == [("b2", CLOSE, 500)]


def test_two_who_swap_their_beds_both_keep_their_sessions() -> None:
    ward = Ward(BEDS)
    adt(ward, "A01", 100, "ICU^2", who="A")
    adt(ward, "A01", 110, "ICU^3", who="B")
    assert adt(ward, "A02", 300, "ICU^3", who="A", before="ICU^2") == [("b2", CLOSE, 300), ("b3", OPEN, 300)]
    assert adt(ward, "A02", 301, "ICU^2", who="B", before="ICU^3") == [("b2", OPEN, 301)]


def test_who_lies_where_outlives_what_reads_messages_but_not_a_session_by_hand() -> None:
    sessions: dict = {}
    ward = Ward(BEDS, sessions=sessions)
    adt(ward, "A01", 100, "ICU^2", who="B")
    sessions["b2"] = (T0 + 100 * NS, "adt")
    ward.intake = ward.make()
    assert adt(ward, "A03", 400, "ICU^2", who="A") == []
    sessions["b2"] = (T0 + 450 * NS, "cli")
    assert adt(ward, "A03", 500, "ICU^2", who="A") == [("b2", CLOSE, 500)], "whose that is, ADT does not know"


@pytest.mark.parametrize("at", [90, 100, 200])
def test_an_admission_that_is_taken_back_ends_its_session_whenever_its_message_is_dated(at) -> None:
    ward = Ward(BEDS)
    adt(ward, "A01", 100, "ICU^2", who="A")
    assert adt(ward, "A11", 200, "ICU^2", who="B") == []
    assert adt(ward, "A11", at, "ICU^2", who="A") == [("b2", CLOSE, max(at, 100))]
    assert adt(ward, "A11", 300, "ICU^2", who="A")[1:] == []


def test_a_transfer_that_is_taken_back_is_one_back() -> None:
    ward = Ward(BEDS)
    adt(ward, "A01", 100, "ICU^2", who="A")
    adt(ward, "A02", 200, "ICU^3", who="A", before="ICU^2")
    assert adt(ward, "A12", 300, "ICU^2", who="A", before="ICU^3") == [("b3", CLOSE, 300), ("b2", OPEN, 300)]


def test_a_discharge_that_is_taken_back_opens_anew_where_somebody_has_left() -> None:
    ward = Ward(BEDS)
    adt(ward, "A01", 100, "ICU^2", who="A")
    assert adt(ward, "A13", 150, "ICU^2", who="A") == [], "has never left"
    adt(ward, "A03", 200, "ICU^2", who="A")
    assert adt(ward, "A13", 300, "ICU^2", who="A") == [("b2", OPEN, 300)]


def test_an_admission_that_is_told_late_begins_when_it_was_and_is_counted() -> None:
    ward = Ward({"ICU^2": "b2"}, ends={"b2": T0 + 400 * NS}, sessions={"b2": (T0, "adt")})
    assert adt(ward, "A01", 300, "ICU^2", who="B") == [("b2", OPEN, 300)]
    assert ward.intake.told["admissions told late"] == 1
    assert adt(ward, "A01", 500, "ICU^2", who="C") == [("b2", OPEN, 500)]
    assert ward.intake.sessions.late == 1


@pytest.mark.parametrize(
    ("second", "taken"),
    [
        (("PID|||B", "PV1||I|ICU^2"), 0),
        (("PID|||A", "PV1||I|ICU^3"), 0),
        (("PID|||", "PV1||I|ICU^2"), 0),
        (("PID|||A", "PV1||I|ICU^2"), 2),
    ],
)
def test_a_listener_for_one_bed_takes_nothing_of_a_message_about_two(second, taken) -> None:
    other = hr("99", time="20260301080001")
    events = Ward().take("PID|||A", "PV1||I|ICU^2", hr("61"), *second, other)
    assert len(records(events)) == taken
    refused = sum(count for (reason, _), count in left(events).items() if reason == "unknown-place")
    assert refused == 2 - taken


def test_two_people_in_one_bed_have_nothing_of_one_message() -> None:
    two = (
        "PID|||A",
        "PV1||I|ICU^2",
        hr("61"),
        "PID|||B",
        "PV1||I|ICU^2",
        hr("99"),
        "PID|||C",
        "PV1||I|ICU^3",
        hr("70"),
    )
    events = Ward(BEDS).take(*two)
    assert records(events) == [("b3", 0, {"heart_rate": 70.0})]
    assert left(events) == {("unknown-place", "ICU:2^PV1-3"): 2}
