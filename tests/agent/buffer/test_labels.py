"""Labels: each inside one session, a batch whole or not at all, the same one once, withdrawn but not gone."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from bedside.agent.buffer.labels import MAX_LABELS, Labels
from bedside.agent.buffer.plausibility import MAX_WARNINGS, Known
from bedside.agent.buffer.rows import Label
from bedside.agent.buffer.sessions import Sessions
from bedside.agent.buffer.store import BufferStore
from bedside.core.errors import BedsideError
from bedside.core.ids import StreamId
from bedside.service.platform import SystemClock, SystemEntropy

ECG = StreamId("ecg")
S = 1_000_000_000


@pytest.fixture
def buffer(tmp_path: Path):
    opened = BufferStore(tmp_path / "b.db", bytes(32), SystemClock(), SystemEntropy())
    yield opened
    opened.close()


@pytest.fixture
def sessions(buffer: BufferStore) -> Sessions:
    """Two sessions of `ecg`: from 10 to 20 s, and open from 30 s."""
    buffer.sessions.open(ECG, 10 * S, "cli")
    buffer.sessions.close(ECG, 20 * S)
    buffer.sessions.open(ECG, 30 * S, "cli")
    return buffer.sessions


def label(start_s: float, end_s: float, name: str = "af", **more) -> Label:
    fields = {"stream": ECG, "session": "", "origin": "cli"} | more
    return Label(start_ns=round(start_s * S), end_ns=round(end_s * S), label=name, **fields)


def rows(buffer: BufferStore) -> list[tuple]:
    return [tuple(row) for row in buffer.database.connection.execute("SELECT * FROM labels ORDER BY id")]


def refused(labels: Labels, *batch: Label) -> str:
    with pytest.raises(BedsideError) as error:
        labels.add(batch)
    return error.value.code


def test_a_label_belongs_to_the_session_that_covers_its_start_also_a_closed_one(buffer, sessions) -> None:
    closed, still_open = (
        row["session"] for row in buffer.database.rows("SELECT session FROM sessions ORDER BY number")
    )
    added = Labels(buffer).add([label(10, 11), label(19, 20), label(30, 31)])
    assert [one.session for one in added.labels] == [closed, closed, still_open]
    assert ([one.number for one in added.labels], added.new) == ([1, 2, 3], 3)


def test_a_session_alone_names_the_stream(buffer, sessions) -> None:
    session = sessions.current(ECG)
    (one,) = Labels(buffer).add([label(31, 32, stream="", session=session)]).labels
    assert (one.stream, one.session) == (ECG, session)


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (label(9.9, 11), "no-session-covers"),
        (label(20, 21), "no-session-covers"),
        (label(19, 20.1), "label-crosses-session"),
        (label(31, 32, stream=StreamId("other")), "no-session-covers"),
        (label(31, 32, session="no-such"), "no-such-session"),
        (label(31, 32, stream="", session=""), "bad-label"),
        (label(31, 31), "bad-label-time"),
        (label(-1, 31), "bad-label-time"),
        (label(31, 10**10), "bad-label-time"),
        (label(31, 32, name=" "), "bad-label"),
        (label(31, 32, name="a\nb"), "bad-label"),
        (label(31, 32, name="ö" * 33), "bad-label"),
        (label(31, 32, name="\ud800"), "bad-label"),
        (label(31, 32, origin="replay"), "bad-label-origin"),
        (label(31, 32, origin="csv:\x1b[2J"), "bad-label-origin"),
        (label(31, 32, stream=StreamId("ECG 1")), "bad-id"),
    ],
)
def test_what_is_refused_has_a_code_and_takes_the_whole_batch_with_it(buffer, sessions, one, code) -> None:
    assert refused(Labels(buffer), label(30, 31), one) == code
    assert rows(buffer) == []


def test_a_session_that_is_named_must_cover_the_label(buffer, sessions) -> None:
    assert refused(Labels(buffer), label(10, 11, session=sessions.current(ECG))) == "no-session-covers"


def test_a_batch_is_bounded(buffer, sessions) -> None:
    assert refused(Labels(buffer), *[label(31, 32)] * (MAX_LABELS + 1)) == "too-many-labels"


def test_the_same_label_twice_is_one(buffer, sessions) -> None:
    labels = Labels(buffer)
    first = labels.add([label(31, 32), label(31, 32)])
    again = labels.add([label(31, 32)])
    assert (first.new, again.new, len(rows(buffer))) == (1, 0, 1)
    assert first.labels[0] == first.labels[1] == again.labels[0]
    assert labels.add([label(31, 32, origin="api"), label(31, 32, name="sr")]).new == 2


def test_a_withdrawn_label_stays_marked_and_its_file_does_not_bring_it_back(buffer, sessions) -> None:
    labels = Labels(buffer)
    by_hand, from_file = label(31, 32), label(32, 33, origin="csv:beats.csv")
    for one in labels.add([by_hand, from_file]).labels:
        assert labels.withdraw(one.number) == replace(one, withdrawn=True)
    assert labels.add([from_file]).new == 0
    assert labels.add([by_hand]).new == 1
    found = buffer.database.rows("SELECT withdrawn FROM labels ORDER BY id")
    assert [row["withdrawn"] for row in found] == [1, 1, 0]


def test_what_is_not_there_cannot_be_withdrawn(buffer, sessions) -> None:
    with pytest.raises(BedsideError, match="there is no label 7"):
        Labels(buffer).withdraw(7)


def test_pages_hold_a_session_in_the_order_of_its_numbers(buffer, sessions) -> None:
    labels = Labels(buffer)
    added = labels.add([label(40, 41), label(10, 11), label(35, 36)]).labels
    session = sessions.current(ECG)
    assert labels.page(session, 0) == [added[0], added[2]]
    assert labels.page(session, added[0].number) == [added[2]]
    assert labels.page(session, added[2].number) == []


def test_a_label_may_not_end_in_the_future_of_the_clock_and_of_the_signal(buffer, sessions) -> None:
    labels, now_s = Labels(buffer), time.time()
    assert labels.add([label(31, now_s + 50)]).new == 1
    assert refused(labels, label(31, now_s + 3600)) == "label-in-future"
    sessions.open(ECG, round((now_s + 7200) * S), "replay")  # faster than time
    assert labels.add([label(now_s + 7200, now_s + 7230)]).new == 1


def test_what_looks_wrong_is_stored_and_told(buffer, sessions) -> None:
    labels = Labels(buffer, lambda: Known(frozenset({"af", "sr"})))
    first = labels.add([label(31, 33), label(33, 35, name="afib"), label(34, 36, name="afib")])
    assert first.warnings == ("no model of this device knows the class 'afib': the classes are af, sr",)
    assert labels.add([label(33, 35, name="afib")]).warnings == (), "it was there, and has been told"
    second = labels.add([label(10, 20, name="sr"), label(32, 33, name="sr"), label(36, 37, name="sr")])
    assert second.warnings == (
        "label 'sr' from 1970-01-01T00:00:32.000+00:00 contradicts label 1, 'af', over the same time",
    )
    assert second.new == 3
    labels.withdraw(1)
    assert labels.add([label(31, 32, name="sr")]).warnings == (), "a withdrawn label contradicts nobody"


def test_a_value_of_a_class_and_a_class_of_a_value_are_told_apart(buffer, sessions) -> None:
    labels = Labels(buffer, lambda: Known(frozenset({"rest", "walk"}), frozenset({"po2"})))
    assert labels.add([label(10, 11, name="walk"), replace(label(11, 12, name="po2"), value=91.0)]).warnings == ()
    asked = [replace(label(12, 13, name=name), value=3.0) for name in ("spo2", "walk")]
    assert labels.add([*asked, label(14, 15, name="po2")]).warnings == (
        "no model of this device knows the class 'po2': it is estimated, and learnt from labels with a value",
        "no model of this device estimates 'spo2': the values are po2",
        "no model of this device estimates 'walk': it is a class, and learnt from labels without a value",
    )
    labels = Labels(buffer, lambda: Known(frozenset({"walk"})))
    asked = [replace(label(16, 17, name="spo2"), value=3.0)]
    assert labels.add(asked).warnings == ("no model of this device estimates 'spo2': the values are none",)


def test_warnings_are_bounded(buffer, sessions) -> None:
    labels = Labels(buffer, lambda: Known(frozenset({"af"})))
    added = labels.add([label(31, 32, name=f"class-{number}") for number in range(MAX_WARNINGS + 5)])
    assert len(added.warnings) == MAX_WARNINGS + 1
    assert added.warnings[-1] == "and 5 more like these"


def test_a_labels_value_is_kept_and_another_one_is_another_label(buffer, sessions) -> None:
    labels = Labels(buffer)
    added = labels.add([label(10, 11, "po2", value=11.5), label(10, 11, "po2", value=11.5), label(11, 12, "po2")])
    assert [one.value for one in added.labels] == [11.5, 11.5, None]
    assert added.new == 2
    corrected = labels.add([label(10, 11, "po2", value=12.5)])
    assert corrected.new == 1
    assert corrected.warnings == (
        "label 'po2' of 12.5 from 1970-01-01T00:00:10.000+00:00 contradicts label 1, of 11.5, over the same time",
    )
    assert labels.add([label(10, 11, "po2", value=11.5)]).new == 0
    assert not labels.add([label(10, 11, "af")]).warnings, "a value beside a class says nothing against it"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e31])
def test_a_value_that_is_no_number_is_refused(buffer, sessions, value) -> None:
    assert refused(Labels(buffer), label(10, 11, "po2", value=value)) == "bad-label"
